"""The processes that torchrun started, and minibatches in parts: shared by these, or computed one part after the other.

Random numbers are drawn for the whole minibatch and then shared out, minibatch-stddev groups stay whole, and gradients
are averaged, among processes in one message; so the parts together do what the whole would, up to rounding.
(DistributedDataParallel does not fit networks of which a part is idle, and a loss that has gradients of gradients.)
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from progan.config import TrainConfig
from progan.schedule import Phase, Schedule
from progan.support.config_io import value_at
from progan.support.errors import ConfigError, Stopped, UserError
from progan.support.processes import Processes

T = TypeVar("T")
Share = slice | list[int]  # of a minibatch

# The others wait while the first process measures metrics, its longest work alone; one that ends is noticed at once.
LONGEST_WAIT = timedelta(hours=3)
# What the libraries say when another process has ended.
GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")


@dataclass(frozen=True)
class Team(Processes):
    """This process among those that train, or measure, together; by default it is alone."""

    torchrun: int | None = None
    """The process that started this one, if that was torchrun."""

    def rows(self, batch: int, config: TrainConfig) -> Share:
        """Which images of a minibatch are this process's."""
        return _share(batch, config, self.rank, self.size)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in one message."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        with _together():
            dist.all_reduce(flat)
        parts = (flat / self.size).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers."""
        if self.size == 1:
            return number
        found = torch.tensor([number])
        with _together():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def left_alone(self) -> int:
        """SIGTERM when torchrun is gone, so that nobody watches over this process any more; else 0."""
        return 0 if self.torchrun in (None, os.getppid()) else int(signal.SIGTERM)

    def first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all. If it raises UserError there, the others end with exit code 2."""
        if self.size == 1:
            return make()
        told: list[Any] = [None, None]
        error: UserError | None = None
        if self.rank == 0:
            try:
                told = [make(), None]
            except UserError as raised:
                error, told = raised, [None, str(raised)]
        with _together():
            dist.broadcast_object_list(told, device=torch.device("cpu"))
        if error is not None:
            raise error
        if told[1] is not None:
            raise SystemExit(2)
        made: T = told[0]
        return made

    def together(self, make: Callable[[], T]) -> T:
        """What each makes for itself. If any raises UserError, the first process tells it, and all end with code 2."""
        if self.size == 1:
            return make()
        error: UserError | None = None
        try:
            made = make()
        except UserError as raised:
            error = raised
        told: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(told, None if error is None else str(error))
        said: list[str] = [words for words in told if words is not None]
        if not said:
            return made
        if self.rank == 0:
            raise error or UserError(*said[0].split("\n"))
        raise SystemExit(2)

    def gather(self, mine: T) -> list[T]:
        """In the first process, what each has, by rank; in the others nothing. Through the memory of the CPU."""
        if self.size == 1:
            return [mine]
        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with _together():
            dist.gather_object(mine, found)
        return found or []

    def total(self, counts: np.ndarray) -> np.ndarray:
        """In the first process, the sum of all arrays of one shape, uint32; in the others an array of no meaning."""
        if self.size > 1:
            with _together():
                dist.reduce(torch.from_numpy(counts.view(np.int32)), 0)  # in place; signed, for gloo knows no other
        return counts


ALONE = Team()


@contextmanager
def join_team(device: torch.device) -> Iterator[Team]:
    """The processes that torchrun started with this one, each with its own GPU if the device is one.

    Raises ConfigError when there are fewer GPUs.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    if int(os.environ["WORLD_SIZE"]) == 1:
        yield Team(torchrun=os.getppid())
        return
    own_gpu(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    # Together: one that leaves while another still writes may be aborted. Not after an error, for that would wait too.
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), os.getppid())
    except Stopped:
        with _together():
            dist.barrier()
        raise
    with _together():
        dist.barrier()
    dist.destroy_process_group()


def own_gpu(device: torch.device) -> None:
    """Of the processes that torchrun started, each computes on a GPU of its own from here on, if that is the device.

    Raises ConfigError when there are fewer GPUs, or the device is one of them.
    """
    if device.type != "cuda" or not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return
    if device.index is not None:
        raise ConfigError(f"device: {device} cannot hold several processes; use cuda, and each takes a GPU")
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise ConfigError(f"this machine has {there} GPUs; start one process for each")
    torch.cuda.set_device(local)


@contextmanager
def _together() -> Iterator[None]:
    """What all processes do at once; when another has ended, end too, and quietly, for that one has said why."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in GONE):
            raise SystemExit(2) from None
        raise


def check_shares(config: TrainConfig, size: int) -> None:
    """Raises ConfigError when the minibatches cannot be cut as several processes or config.micro_batch need it."""
    schedule = Schedule(config.schedule, config.g.resolution)
    for phase in (schedule.at(span.start_nimg) for span in schedule.phases()):
        at_once = images_at_once(config, phase, size)
        if at_once == phase.batch:
            continue
        group, where = group_size(phase.batch, config), f"{phase.resolution}x{phase.resolution}"
        if phase.batch % (group * size):
            raise ConfigError(
                f"batch: {phase.batch} at {where} cannot be cut into whole stddev groups of {group} for {size} process"
                f"{'es' if size > 1 else ''}; make it a multiple of {group * size}, or set --d.stddev-group"
            )
        if at_once < group:
            raise ConfigError(
                f"micro_batch: {at_once} at {where} holds no stddev group of {group}; use {group} or more, or set"
                " --d.stddev-group"
            )
        if config.g.norm == "batch":
            raise ConfigError("g.norm: batch normalisation needs whole minibatches; take one process, no micro_batch")
        if config.d.minibatch_kernels:
            raise ConfigError("d.minibatch_kernels: they need whole minibatches; take one process, no micro_batch")


def micro_batches(config: TrainConfig, phase: Phase, size: int) -> list[Share]:
    """Which images of a process's share of a minibatch it computes at once, one part after the other."""
    own, at_once = phase.batch // size, images_at_once(config, phase, size)
    groups = own // group_size(own, config)
    count = next(n for n in range(1, groups + 1) if groups % n == 0 and own // n <= at_once)
    return [_share(own, config, i, count) for i in range(count)]


def images_at_once(config: TrainConfig, phase: Phase, size: int = 1) -> int:
    """How many images a process computes at once, at most, when so many share a minibatch."""
    own = phase.batch // size
    return min(value_at(config.micro_batch, phase.resolution) or own, own)


def _share(batch: int, config: TrainConfig, index: int, count: int) -> Share:
    """One of `count` shares of a minibatch, so ordered that its stddev groups are groups of the whole.

    Image i of M groups goes with i + M, i + 2M, ...: of each such row a share has a part.
    """
    if count == 1:
        return slice(None)
    groups = batch // group_size(batch, config)
    part = groups // count
    starts = range(index * part, batch, groups)
    return [i for start in starts for i in range(start, start + part)]


def group_size(batch: int, config: TrainConfig) -> int:
    """How many images of a minibatch must stay together."""
    return min(config.d.stddev_group or 1, batch)
