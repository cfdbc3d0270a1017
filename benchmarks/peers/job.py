"""What one of those compared trains, on which images, and how it waits for its turn."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.images import to_float
from progan.schedule import Schedule
from progan.support.rng import data_order

EVER = 1000  # so many times its length the last stage has images for; the clock ends it


@dataclass(frozen=True)
class Growth:
    """How training goes through the resolutions, 4x4 first: images that D learns from, and during how many of them the
    block of that resolution fades in. The last stage goes on until the clock ends it."""

    nimg: tuple[float, ...]
    fade: tuple[float, ...]

    @classmethod
    def of(cls, config: TrainConfig) -> "Growth":
        """That of our own schedule."""
        spans = Schedule(config.schedule, config.g.resolution).phases()
        nimg, fade = dict.fromkeys(config.g.resolutions, 0), dict.fromkeys(config.g.resolutions, 0)
        for span in spans:
            nimg[span.resolution] += span.stop_nimg - span.start_nimg
            fade[span.resolution] += (span.stop_nimg - span.start_nimg) * span.fading
        return cls(tuple(nimg.values()), tuple(fade.values()))

    def scale_for(self, seconds: float, pace: tuple[float, ...]) -> float:
        """How many times as many images take so many seconds; pace: seconds per image at each resolution."""
        return seconds / sum(nimg * spent for nimg, spent in zip(self.nimg, pace, strict=True))

    def scaled(self, factor: float) -> "Growth":
        """The same shape with other numbers of images."""
        return Growth(tuple(n * factor for n in self.nimg), tuple(n * factor for n in self.fade))


@dataclass(frozen=True)
class Job:
    """What one of them trains. All of them have the widths and the minibatch of `config`, which is progan's."""

    name: str
    who: str
    """progan, or the name of a peer in clones.py."""
    config: TrainConfig
    clone: Path | None = None
    own: bool = False
    """A peer with its own rates, average and shape of growth; else with those of `config`, where it has options."""
    data: Path | None = None
    """Images; None: random ones."""
    seconds: float = 0.0
    """How long it is going to train; 0: it is the full network from the start, for a measurement of its speed."""
    pace: tuple[float, ...] = ()
    """Seconds per image at each resolution, as measured before."""
    threads: int = 1
    log: Path = Path(os.devnull)

    @property
    def minibatch(self) -> int:
        return self.config.schedule.batch[4]

    def growth(self, shape: Growth) -> tuple[Growth, float]:
        """The shape, in images that fill the seconds, and the factor between the two."""
        factor = shape.scale_for(self.seconds, self.pace)
        return shape.scaled(factor), factor


class TimeIsUp(Exception):
    """Ends a training loop, whoever wrote it, where it asks for its next images."""


class Turns:
    """Lets a training loop go on only in its turn. The other end of the pipe says for how long, or what comes after."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.spent: list[float] = []
        self.asked: float | None = None
        self.seconds, self.steps = 0.0, 0

    def wait(self) -> None:
        """To be called when a loop asks for images. Reports the seconds since each call at the end of a turn."""
        now = time.perf_counter()
        if self.asked is not None:
            self.spent.append(now - self.asked)
        if self.asked is None or (len(self.spent) >= self.steps and sum(self.spent) >= self.seconds):
            if self.asked is not None:
                self.pipe.send(self.spent)
            turn = self.pipe.recv()
            if turn is None:
                raise TimeIsUp
            (self.seconds, self.steps), self.spent = turn, []
        self.asked = time.perf_counter()


@dataclass
class Feed:
    """The same images in the same order for all, from memory."""

    job: Job
    turns: Turns
    nimg: int = 0

    @cached_property
    def data(self) -> ImagePyramid | None:
        return None if self.job.data is None else ImagePyramid.open(self.job.data)

    def read(self, resolution: int) -> Tensor:
        """The next minibatch, without waiting for a turn: float32 [minibatch, 3, R, R] in [-1, 1]."""
        count = self.job.minibatch
        if self.data is None:
            return torch.rand(count, 3, resolution, resolution) * 2 - 1
        images = self.data.read(data_order(self.job.config.seed, self.nimg, count, len(self.data)), resolution)
        return to_float(torch.from_numpy(images))

    def take(self, resolution: int) -> Tensor:
        """The same, in its turn."""
        self.turns.wait()
        reals = self.read(resolution)
        self.nimg += self.job.minibatch
        return reals


class Loader:
    """What a peer's loop goes through in place of its own reader of files: so many minibatches, each from `read`."""

    def __init__(self, batches: int, read: Callable[[], Any]) -> None:
        self.batches, self.read = batches, read

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        return (self.read() for _ in range(self.batches))


@dataclass
class Trained:
    """What came of a training. draw(count): images uint8 [count, 3, R, R]; about: for the record."""

    draw: Callable[[int], np.ndarray]
    about: dict[str, Any]
