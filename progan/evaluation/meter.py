"""Measuring streams of generated images against a data set (paper section 5)."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import torch

from progan.data.store.pyramid import ImagePyramid
from progan.images import mirror
from progan.metrics.cache import cached
from progan.metrics.protocol import Collector, Statistics
from progan.metrics.suite import Metric, Values, value_title
from progan.support.errors import DataError, RunError
from progan.support.files import disk_reason
from progan.support.plain_files import LIST_BYTES, read_plain
from progan.support.processes import ALONE, Processes
from progan.support.progress import counted
from progan.support.rng import keyed_generator

READ_AT_ONCE = 4 * 1024 * 1024  # pixels
DRAWN_AT_ONCE = 64  # images: a whole number of the batches of `sample_batches`, at every resolution


@dataclass(frozen=True)
class Reals:
    """A data set's images in random order, each at most once, at one resolution.

    mirrored: every image is shown mirrored with probability one half, as it must be when training did so.
    """

    data: ImagePyramid
    resolution: int
    mirrored: bool
    seed: int = 0

    def stream(self, start: int, count: int, own: Sequence[range] | None = None) -> Iterator[np.ndarray]:
        """Numbers start .. start + count of the order: uint8 [n, C, R, R]; own: which of 0 .. count, by default all."""
        total = len(self.data)
        order = torch.randperm(total, generator=keyed_generator(self.seed, "measured reals")).numpy()
        flips = torch.rand(total, generator=keyed_generator(self.seed, "measured mirror")).numpy() < 0.5
        wanted = [range(count)] if own is None else own
        for chosen in chain.from_iterable(self._batches(start + some.start, start + some.stop) for some in wanted):
            images = self.data.read(order[chosen], self.resolution)
            yield mirror(images, flips[chosen]) if self.mirrored else images

    def in_order(self) -> Iterator[np.ndarray]:
        """All images as they are stored, none mirrored."""
        every = np.arange(len(self.data))
        for chosen in self._batches(0, len(every)):
            yield self.data.read(every[chosen], self.resolution)

    def _batches(self, start: int, stop: int) -> Iterator[slice]:
        """Ranges of at most 256 images, and of bounded memory."""
        batch = max(1, min(256, READ_AT_ONCE // self.resolution**2))
        return (slice(first, min(first + batch, stop)) for first in range(start, stop, batch))

    def key(self) -> dict[str, Any]:
        """What the images depend on. A file that is written again, even in place, changes it."""
        return {
            "data": self.data.hash,
            "file": list(self.data.stamp(self.resolution)),
            "resolution": self.resolution,
            "mirrored": self.mirrored,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Result:
    """One metric of one set of images.

    values: by level and "average" for SWD, {"": value} for others; SWD and KID are x 1e3. spread: of each value, what
    kind is in `metric.spread`. floor: the values of reals against other reals for a distance, else the reals' own.
    images: how many of fakes, reals and floor.
    """

    metric: Metric
    values: Values
    spread: Values
    floor: Values
    images: dict[str, int]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain data, for a line of metrics.jsonl."""
        return {
            "metric": self.metric.name,
            "values": self.values,
            "spread": self.spread,
            "spread_is": self.metric.spread,
            "floor" if self.metric.is_distance else "reals": self.floor,
            "images": self.images,
            "protocol": self.metric.protocol.hash,
            "protocol_fields": self.metric.protocol.describe(),
            "seconds": round(self.seconds, 2),
        }


@dataclass
class Meter:
    """Measures one set of fakes after the other against the same reals, whose statistics are collected once.

    Of several processes each is given and describes its own part of the fakes, and of the reals, and the first has the
    results: those of one process, to the bit on CPUs where each has as many threads as the one. Raises DataError when
    the data set holds too few images for a metric and its noise floor, or too small ones, or none of 1 or 3 channels.
    """

    metrics: Sequence[Metric]
    reals: Reals
    device: torch.device
    quiet: bool = False
    flag: str = "--images"
    """What the number of images is called where it was given."""
    processes: Processes = ALONE
    _reals: dict[str, Statistics] = field(default_factory=dict, init=False)
    _floors: dict[str, Values] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.processes.first(self._check_all)

    def own(self, count: int) -> list[range]:
        """Which of `count` fakes, numbered from 0, this process is to give to `measure`; alone, all."""
        return self.processes.own(count, self._unit)

    @property
    def _unit(self) -> int:
        """Images that stay in one process: 64, and more for sets of under 512, of which SWD takes smaller blocks."""
        return lcm(DRAWN_AT_ONCE, *(metric.protocol.block for metric in self.metrics))

    def measure(self, fakes: Iterable[np.ndarray]) -> list[Result]:
        """The metrics of a stream of uint8 batches [n, C, R, R], which may hold more images than are needed.

        Of several processes all must call this at once, and all but the first get an empty list.
        """
        for metric in self.metrics:
            self._prepare(metric)
        collectors: dict[str, Collector] = {}
        for metric in self.metrics:
            key = metric.protocol.hash
            against = self._reals[key] if metric.is_distance else None
            if key not in collectors:
                collectors[key] = metric.collector("fakes", self.device, against=against)
                collectors[key].share(self.processes, self._unit)
        seconds = dict.fromkeys(collectors, 0.0)
        wanted = max(collector.wanted for collector in collectors.values())

        def describe() -> None:
            for images in counted("fakes", fakes, wanted, self.quiet):
                for key, collector in collectors.items():
                    start = time.perf_counter()
                    collector.add(images)
                    seconds[key] += time.perf_counter() - start
                if all(collector.taken == collector.wanted for collector in collectors.values()):
                    break

        self.processes.together(describe)
        statistics: dict[str, Statistics] = {}
        results = []
        for metric in self.metrics:
            start, key = time.perf_counter(), metric.protocol.hash
            if key not in statistics:
                statistics[key] = collectors.pop(key).finish()
            if self.processes.rank:
                continue
            values, spread = metric.compare(statistics[key], self._reals[key])
            took = seconds[key] + time.perf_counter() - start
            there = len(self.reals.data)
            counts = {"fakes": metric.size, "reals": metric.reals_taken(there)}
            if others := metric.floor_taken(there):
                counts["floor"] = others
            results.append(Result(metric, values, spread, self._floors[metric.name], counts, took))
        return results

    def _prepare(self, metric: Metric) -> None:
        """Statistics of the reals and the noise floor, from the cache if they are there."""
        protocol = metric.protocol
        key = {"metric": protocol.name, "protocol": protocol.describe(), "reals": self.reals.key()}
        if protocol.hash not in self._reals:
            self._reals[protocol.hash] = cached(
                key | {"role": "reals"},
                lambda: self._collect(metric, "reals", 0, metric.reals_taken(len(self.reals.data))),
                processes=self.processes,
            )
        if metric.name not in self._floors:
            of_floor = key | {"role": "floor", "name": metric.name, "seed": metric.seed}
            found = cached(of_floor, lambda: _packed(self._floor(metric)), processes=self.processes)
            self._floors[metric.name] = _unpacked(found)

    def _floor(self, metric: Metric) -> Values:
        reals = self._reals[metric.protocol.hash]
        if not metric.is_distance:
            return {} if self.processes.rank else metric.compare(reals, reals)[0]
        there = len(self.reals.data)
        if not (count := metric.floor_taken(there)):
            return {}
        others = self._collect(metric, "floor", metric.reals_taken(there), count)
        return {} if self.processes.rank else metric.compare(others, reals)[0]

    def _collect(self, metric: Metric, role: str, start: int, count: int) -> Statistics:
        collector = metric.collector(role, self.device, count)
        unit = lcm(DRAWN_AT_ONCE, collector.block_size)
        collector.share(self.processes, unit)
        text = f"{metric.name}: reals" if role == "reals" else f"{metric.name}: other reals"
        own = self.processes.own(count, unit)

        def describe() -> None:
            for images in counted(text, self.reals.stream(start, count, own), collector.wanted, self.quiet):
                collector.add(images)

        self.processes.together(describe)
        return collector.finish()

    def _check_all(self) -> None:
        for metric in self.metrics:
            self._check(metric)

    def _check(self, metric: Metric) -> None:
        have, data = len(self.reals.data), self.reals.data.path
        side, channels = self.reals.resolution, self.reals.data.channels
        if side < metric.smallest:
            least = f"{metric.smallest}x{metric.smallest}"
            raise DataError(f"--metrics: {metric.name} needs images of {least}, these are {side}x{side}; leave it out")
        if channels not in (1, 3):
            raise DataError(f"--metrics: {data} has {channels} channels, and 1 or 3 can be measured; leave metrics out")
        if have >= metric.reals_needed:
            return
        if metric.reals_taken(have) < metric.size:  # few are enough, so it is no question of their number
            raise DataError(f"{data}: holds {have:,} images, {metric.name} needs {metric.reals_needed}; give more")
        raise DataError(
            f"{data}: holds {have:,} images, {metric.name} needs {metric.reals_needed:,} ({metric.size:,} reals"
            + (" and half as many others for the noise floor" if metric.is_distance else "")
            + f"); give a larger data set, or {self.flag} {have // 2 if metric.is_distance else have}"
            " (values from other numbers do not compare)"
        )


def append(record: Path, results: Sequence[Result], name: str, nimg: int | None, meter: Meter) -> None:
    """Add one line per result to metrics.jsonl; raises RunError when the disk does not take it."""
    about = {"source": name, "nimg": nimg}
    where = {
        "data": meter.reals.data.hash,
        "resolution": meter.reals.resolution,
        "mirrored": meter.reals.mirrored,
        "seed": meter.reals.seed,
        "device": str(meter.device),
    }
    lines = "".join(json.dumps(about | result.as_json() | where) + "\n" for result in results)
    try:
        if record.exists() and read_plain(record, LIST_BYTES)[-1:] not in (b"\n", b""):
            lines = "\n" + lines  # a kill cut the line before short
        with record.open("ab") as file:
            file.write(lines.encode())
    except OSError as error:
        raise RunError(f"{record}: cannot be written ({disk_reason(error)}); free some space") from None


def in_one_line(results: Sequence[Result]) -> str:
    """'SWD x1e3 average 12.3 ± 0.2 (reals 1.1), MS-SSIM 0.21 ± 0.01 (reals 0.18)'."""
    parts = []
    for result in results:
        level = list(result.values)[-1]
        value, spread = number(result.values[level]), number(result.spread.get(level))
        floor = f" (reals {number(result.floor[level])})" if level in result.floor else ""
        parts.append(f"{value_title(result.metric.name, level)} {value} ± {spread}{floor}")
    return ", ".join(parts)


def number(value: float | None) -> str:
    """Four digits, or nothing."""
    return "" if value is None else f"{value:.4g}"


def _packed(values: Values) -> Statistics:
    return {f"value {name}": np.float64(value).reshape(1) for name, value in values.items()}


def _unpacked(statistics: Statistics) -> Values:
    return {name.removeprefix("value "): float(array[0]) for name, array in statistics.items()}
