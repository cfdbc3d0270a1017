"""What all metrics share: streams of images, protocols with their hashes, collectors of statistics.

A metric is two pure functions: a collector turns a stream of images into statistics, and statistics of fakes and of
reals give the value. How a stream is cut into batches is of no effect: collectors cut it into blocks of their own.
Several processes that share a set take whole blocks each, and so find together what one would, to the bit.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from progan.support.errors import DataError
from progan.support.processes import ALONE, Processes

Images = np.ndarray | Tensor | Iterable[np.ndarray] | Iterable[Tensor]  # uint8 [N, C, R, R], whole or in batches
Statistics = dict[str, np.ndarray]


@dataclass(frozen=True)
class Protocol:
    """How a metric is measured: the fields of a subclass. Values are comparable when the hashes are equal."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # to be raised whenever the same fields come to mean another computation

    @property
    def block(self) -> int:
        """Images, of which a whole number must stay together when several processes share a set."""
        return 64

    def describe(self) -> dict[str, Any]:
        """Everything that the value depends on, as plain data."""
        return {"metric": self.name, "version": self.version, **asdict(self)}

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that name the protocol."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:12]


class Collector:
    """Takes `size` images in, and gives their statistics.

    size: number of images wanted; block: images that `_block` receives at a time (the last block may be smaller).
    """

    def __init__(self, size: int, block: int) -> None:
        self.size = size
        self.wanted = size
        self.taken = 0
        self.shape: tuple[int, ...] | None = None
        self.block_size = block
        self._waiting: list[np.ndarray] = []
        self._processes = ALONE
        self._unit = block

    def share(self, processes: Processes, unit: int) -> None:
        """Before the first batch: `add` will be given this process's part of the set alone.

        That is `processes.own(size, unit)`, of which `wanted` is the number; unit: images, a whole number of blocks.
        `finish` then is for all processes at once, and gives the statistics of the whole set to the first of them, and
        {} to the others.
        """
        assert unit % self.block_size == 0
        self._processes, self._unit = processes, unit
        self.wanted = sum(map(len, processes.own(self.size, unit)))

    def number(self, block: int) -> int:
        """Which block of the whole set is this process's block of that number."""
        blocks = self._unit // self.block_size
        return (block // blocks * self._processes.size + self._processes.rank) * blocks + block % blocks

    def add(self, images: np.ndarray) -> None:
        """Take a batch, uint8 [n, C, R, R] with C 1 or 3; what exceeds `wanted` is left out.

        Raises DataError for another type or shape, or a shape that differs from the batches before.
        """
        check_images(images)
        if self.shape not in (None, images.shape[1:]):
            raise DataError(
                f"images of {_shown(images.shape[1:])} follow images of {_shown(self.shape)}; give one size"
            )
        self.shape = images.shape[1:]
        images = images[: self.wanted - self.taken]
        self.taken += len(images)
        self._waiting.append(images)
        if sum(map(len, self._waiting)) < self.block_size and self.taken < self.wanted:
            return
        ready = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        whole = len(ready) if self.taken == self.wanted else len(ready) - len(ready) % self.block_size
        for start in range(0, whole, self.block_size):
            block = ready[start : min(start + self.block_size, whole)]
            self._block(block if block.flags.writeable else block.copy())  # PyTorch takes no read-only memory
        self._waiting = [ready[whole:].copy()] if whole < len(ready) else []

    def finish(self) -> Statistics:
        """The statistics, once `size` images were taken; raises DataError when there were too few."""
        taken = self._processes.gather(self.taken)
        self._processes.first(lambda: self._check_enough(sum(taken)))
        return self._statistics()

    def _check_enough(self, taken: int) -> None:
        if taken < self.size:
            raise DataError(
                f"{taken} images are too few, {self.size} are needed; give more, or measure with fewer "
                f"(--images {taken}): values from different numbers of images do not compare"
            )

    def _block(self, images: np.ndarray) -> None:
        raise NotImplementedError

    def _statistics(self) -> Statistics:
        raise NotImplementedError

    def _rows(self, kept: dict[str, list[np.ndarray]], images: int = 1) -> Statistics:
        """Statistics that are a row for every so many images, as the blocks gave them: all in the order of the set."""
        parts = self._processes.gather({name: np.concatenate(rows) for name, rows in kept.items() if rows})
        if len(parts) < 2:
            return parts[0] if parts else {}
        rows, units = self._unit // images, range(-(-self.size // self._unit))
        places = [(unit % len(parts), unit // len(parts) * rows) for unit in units]
        return {name: np.concatenate([parts[i][name][at : at + rows] for i, at in places]) for name in parts[0]}


def collect(images: Images, collector: Collector) -> Statistics:
    """The statistics of a stream."""
    for batch in as_arrays(images):
        collector.add(batch)
        if collector.taken == collector.wanted:
            break
    return collector.finish()


def as_arrays(images: Images) -> Iterator[np.ndarray]:
    """The stream as arrays: one if `images` is an array or a tensor, else one for every batch."""
    for batch in [images] if isinstance(images, np.ndarray | Tensor) else images:
        yield batch.cpu().numpy() if isinstance(batch, Tensor) else np.asarray(batch)


def check_images(images: np.ndarray) -> None:
    """Raise DataError unless `images` is uint8 [N, C, R, R] with C 1 or 3 and R at least 4."""
    n_dims, kind = images.ndim, images.dtype
    if kind != np.uint8 or n_dims != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise DataError(
            f"metrics take uint8 [N, C, R, R] with 1 or 3 channels, not {kind} {list(images.shape)}; "
            "convert with progan.images.to_uint8"
        )
    if images.shape[2] < 4:
        raise DataError(f"images of {images.shape[2]} pixels are too small to measure; give 4 or more")


def check_same_shape(reals: tuple[int, ...] | None, fakes: tuple[int, ...] | None) -> None:
    """Raise DataError unless real and generated images, [C, R, R] each, have one size and channel count."""
    if reals != fakes:
        raise DataError(
            f"reals are {_shown(reals)} and fakes {_shown(fakes)}; give images of one size and channel count"
        )


def rgb(images: np.ndarray) -> np.ndarray:
    """Grayscale repeated to RGB: [N, 1 or 3, R, R] -> [N, 3, R, R]."""
    return np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images


def _shown(shape: tuple[int, ...] | None) -> str:
    assert shape is not None
    return f"{shape[1]}x{shape[2]} with {shape[0]} channel" + ("" if shape[0] == 1 else "s")
