"""What a training step costs at every phase of a schedule, measured on the machine at hand."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from progan.config import TrainConfig
from progan.run.dry_run import enough_memory, step_advice
from progan.run.state import TrainState
from progan.schedule import Schedule, Span
from progan.step import train_step
from progan.support.arithmetic import number_format, same_bits
from progan.support.device import machine, pick_device
from progan.support.files import write_json
from progan.support.flops import CountFlops
from progan.support.json_reader import read_json
from progan.support.malloc import keep_freed_memory
from progan.support.plain_files import CONFIG_BYTES
from progan.support.progress import progress_bar
from progan.support.recording import Recordings

ROUNDS = 3
LEAST_S = 0.3  # that a phase is timed for in each round

Of = Literal["seconds", "flops"]


@dataclass(frozen=True)
class Cost:
    """Training at one phase, for each real image shown: seconds, the least and the most of them, and flops of both
    networks' convolutions and matrix products."""

    resolution: int
    fading: bool
    start_nimg: int
    stop_nimg: int
    batch: int
    seconds: float
    least: float
    most: float
    flops: float


class _Kept(TypedDict):
    about: dict[str, Any]
    phases: list[dict[str, Any]]


def measure_costs(config: TrainConfig, rounds: int = ROUNDS) -> list[Cost]:
    """The cost of every phase of a schedule, in its order, by real steps on random images.

    All phases are timed in turn, round by round, and each has the median of its rounds, so that a machine that speeds
    up or slows down treats all alike. Raises RunError when the memory is not enough.
    """
    device = pick_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    schedule = Schedule(config.schedule, config.g.resolution)
    state, spans = TrainState.create(config, device), schedule.phases()
    recordings = [Recordings() for _ in spans]  # a run drops those of a phase as it ends; here phases come again
    found: list[list[float]] = [[] for _ in spans]
    flops: list[float] = []

    with (
        same_bits(config.deterministic, device),
        number_format(config.precision, tuned=True),
        progress_bar("timing {task.fields[at]}", MofNCompleteColumn, TimeRemainingColumn) as progress,
    ):
        task = progress.add_task("", total=(rounds + 1) * len(spans), at="")
        for turn in range(rounds + 1):
            for span, seconds, recorded in zip(spans, found, recordings, strict=True):
                state.recordings = recorded
                progress.update(task, at=f"{span.resolution}x{span.resolution}")
                step = _step(state, schedule, span, device)
                if turn:
                    seconds.append(_timed(step, device))
                else:  # what is slow the first time only
                    with CountFlops() as counter:
                        images = step()
                    flops.append(counter.total / images)
                progress.advance(task)
    return [
        Cost(
            span.resolution,
            span.fading,
            span.start_nimg,
            span.stop_nimg,
            schedule.at(span.start_nimg).batch,
            statistics.median(seconds),
            min(seconds),
            max(seconds),
            work,
        )
        for span, seconds, work in zip(spans, found, flops, strict=True)
    ]


def spent(costs: Sequence[Cost], of: Of, nimg: float) -> float:
    """Seconds or flops of training until `nimg` images are shown."""
    return float(sum(max(0.0, min(nimg, cost.stop_nimg) - cost.start_nimg) * getattr(cost, of) for cost in costs))


def kept_costs(path: Path, config: TrainConfig) -> tuple[dict[str, Any], list[Cost]]:
    """The machine, and its costs with one thread, as the runs of a study have: those kept in `path`, or measured now
    and kept if it holds none of this schedule."""
    spans = [[span.start_nimg, span.stop_nimg] for span in Schedule(config.schedule, config.g.resolution).phases()]
    with suppress(OSError, ValueError, TypeError):
        kept = read_json(path, _Kept, CONFIG_BYTES)
        costs = [Cost(**cost) for cost in kept["phases"]]
        if [[cost.start_nimg, cost.stop_nimg] for cost in costs] == spans:
            return kept["about"], costs
    with _one_thread():
        costs = measure_costs(config)
        about = machine(pick_device(config.device)) | {"precision": config.precision, "rounds": ROUNDS}
    write_json(path, {"about": about, "phases": [asdict(cost) for cost in costs]})
    return about, costs


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _step(state: TrainState, schedule: Schedule, span: Span, device: torch.device) -> Callable[[], int]:
    """A step in the middle of a phase, on images that are there; it returns how many it showed."""
    config, middle = state.config, (span.start_nimg + span.stop_nimg) // 2
    phase = schedule.at(middle)
    shape = (phase.batch, config.g.channels, phase.resolution, phase.resolution)
    images = torch.rand(shape, device=device) * 2 - 1
    classes = torch.arange(phase.batch, device=device) % max(1, config.g.label_dim)
    labels = torch.eye(config.g.label_dim, device=device)[classes] if config.g.label_dim else None

    def step() -> int:
        state.nimg = middle
        with enough_memory(lambda: step_advice(config, phase, 1)):
            train_step(state, lambda nimg: (images, labels), phase)
        return config.d_steps * phase.batch

    return step


def _timed(step: Callable[[], int], device: torch.device) -> float:
    """Seconds per image, of as many steps as LEAST_S hold."""

    def of(steps: int) -> tuple[float, int]:
        start = time.perf_counter()
        images = sum(step() for _ in range(steps))
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()
        return time.perf_counter() - start, images

    seconds, images = of(1)
    if seconds < LEAST_S / 2:
        seconds, images = of(round(LEAST_S / seconds))
    return seconds / images
