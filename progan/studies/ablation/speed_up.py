"""How much sooner a growing run reaches the same quality (paper 6.2: 2 to 6 times)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from progan.evaluation.meter import number
from progan.metrics.suite import value_title

# {"nimg", "seconds" of training until then, "values": SWD x1e3 by level and "average", MS-SSIM, "spread" alike,
# "resolution"}
Point = Mapping[str, Any]
MS_SSIM = "ms_ssim"
By = Literal["seconds", "nimg"]

TARGETS = 9
UNITS: dict[By, str] = {"seconds": "time", "nimg": "images"}


@dataclass(frozen=True)
class Reached:
    """Where a curve first reaches a target. bound: there or before, as that is the first point measured."""

    at: float
    bound: bool


@dataclass(frozen=True)
class SpeedUp:
    """How much sooner the growing run reaches what the weaker of two runs reaches at its best.

    weaker: whose best the target is. grown, other: where they reach it, in seconds or nimg. ratio: other / grown; at
    least that if `grown` is a bound, at most if `other` is, NaN if both are or growing was there at 0. curve:
    (target, ratio) at easier targets, down to this one, that both runs began above; empty if there are none.
    """

    by: By
    level: str
    target: float
    weaker: Literal["grown", "other"]
    grown: Reached
    other: Reached
    ratio: float
    curve: tuple[tuple[float, float], ...]


def speed_up(grown: Sequence[Point], other: Sequence[Point], by: By, level: str = "average") -> SpeedUp | None:
    """Compare two runs, points in order of nimg, at the lowest value that both reach; None if one has no points.

    A run reaches a target where its raw curve first comes down to it: later rises do not count, as one keeps the
    snapshot, and the running minimum crosses between the same points. So a lucky dip counts, too.
    Between two points the value is taken to fall exponentially, a straight line on a logarithmic axis, as SWD falls by
    factors rather than amounts. Points without a positive value, as of a collapsed run, are left out.
    """
    (x, y), (other_x, other_y) = values_of(grown, by, level), values_of(other, by, level)
    if not len(y) or not len(other_y):
        return None
    target = max(y.min(), other_y.min())
    first, second = _reached(x, y, target), _reached(other_x, other_y, target)
    easiest = min(y[0], other_y[0])
    curve = []
    if easiest > target:
        # The easiest itself is one curve's first point: nobody measured when it was reached.
        for goal in [*np.geomspace(easiest, target, TARGETS + 1)[1:-1], target]:
            curve.append((float(goal), _ratio(_reached(x, y, goal), _reached(other_x, other_y, goal))))
    return SpeedUp(
        by=by,
        level=level,
        target=float(target),
        weaker="grown" if y.min() > other_y.min() else "other",
        grown=first,
        other=second,
        ratio=_ratio(first, second),
        curve=tuple(curve),
    )


def describe(speedups: Sequence[SpeedUp | None]) -> str:
    """What was measured, in a sentence or two of markdown per level; those of one level share their target."""
    found = [speedup for speedup in speedups if speedup is not None]
    if not found:
        return "Not measured: one of the runs has no values."
    return "\n\n".join(
        _described([speedup for speedup in found if speedup.level == level])
        for level in dict.fromkeys(speedup.level for speedup in found)
    )


def mean_curve(runs: Sequence[Sequence[Point]]) -> list[dict[str, Any]]:
    """One curve from those of several seeds: points of the same nimg, with mean seconds and values.

    spread: the standard deviation over seeds (n - 1); of a single run, its own.
    """
    if len(runs) == 1:
        return [dict(point) for point in runs[0]]
    points = []
    for same in zip(*runs, strict=True):
        columns = {level: [point["values"][level] for point in same] for level in same[0]["values"]}
        points.append(
            dict(same[0])
            | {
                "seconds": float(np.mean([point["seconds"] for point in same])),
                "values": {level: float(np.mean(values)) for level, values in columns.items()},
                "spread": {level: float(np.std(values, ddof=1)) for level, values in columns.items()},
            }
        )
    return points


def values_of(points: Sequence[Point], by: By, level: str) -> tuple[np.ndarray, np.ndarray]:
    """Where, and the value there, float64 [n] each."""
    found = [(point[by], point["values"].get(level)) for point in points]
    good = [(at, value) for at, value in found if value is not None and math.isfinite(value) and value > 0]
    return np.array([at for at, _ in good], float), np.array([value for _, value in good], float)


def _reached(x: np.ndarray, y: np.ndarray, target: float) -> Reached:
    """The first crossing of a curve that does come down to the target."""
    i = int(np.argmax(y <= target))
    if i == 0:
        return Reached(float(x[0]), bound=bool(x[0] > 0))
    part = math.log(y[i - 1] / target) / math.log(y[i - 1] / y[i])
    return Reached(float(x[i - 1] + part * (x[i] - x[i - 1])), bound=False)


def _ratio(grown: Reached, other: Reached) -> float:
    unknown = grown.at <= 0 or (grown.bound and other.bound)
    return math.nan if unknown else other.at / grown.at


def _described(speedups: Sequence[SpeedUp]) -> str:
    first = speedups[0]
    names = {"grown": "with growing", "other": "without growing"}
    level = f"at {first.level}x{first.level}" if first.level.isdigit() else first.level
    times = " and ".join(f"after {_span(speedup)} ({verdict(speedup)})" for speedup in speedups)
    text = (
        f"{value_title('swd', level)} of {number(first.target)}, the best {names[first.weaker]}, was reached {times}."
    )
    for name, reached in (("grown", first.grown), ("other", first.other)):
        if reached.bound and name == first.weaker:
            text += f" The run {names[name]} was at its best when first measured, so its time is only a bound."
        elif reached.bound:
            early, late = names[name], names[first.weaker]
            text += f" The run {late} never came below the first value measured {early}, so that time is only a bound."
    ranges = []
    for speedup in speedups:
        ratios = [ratio for _, ratio in speedup.curve]
        if ratios:
            ranges.append(f"{min(ratios):.3g} to {max(ratios):.3g} times as fast by {UNITS[speedup.by]}")
    if ranges:
        text += f" From {number(first.curve[0][0])} down to there growing was {' and '.join(ranges)}."
    return text


def _span(speedup: SpeedUp) -> str:
    """'12.3 minutes with growing and 45.6 without'."""
    hours = max(speedup.grown.at, speedup.other.at) > 2 * 3600
    unit, name = (1000, "kimg") if speedup.by == "nimg" else (3600, "hours") if hours else (60, "minutes")
    with_growing, without = (
        ("at most " if reached.bound else "") + f"{reached.at / unit:.3g}" for reached in (speedup.grown, speedup.other)
    )
    return f"{with_growing} {name} with growing and {without} without"


def verdict(speedup: SpeedUp) -> str:
    """'3.7 times as fast'."""
    if math.isnan(speedup.ratio):
        return "the ratio is not known"
    if speedup.grown.bound or speedup.other.bound:
        return f"at {'least' if speedup.grown.bound else 'most'} {speedup.ratio:.3g} times as fast"
    fast = speedup.ratio >= 1
    return f"{speedup.ratio if fast else 1 / speedup.ratio:.3g} times as {'fast' if fast else 'slow'}"
