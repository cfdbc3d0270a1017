"""How much sooner a growing run reaches the same quality (paper 6.2: 2 to 6 times)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from progan.evaluation.meter import number
from progan.metrics.suite import value_title
from progan.support.files import write_json, write_text, write_whole

# {"nimg", "seconds" of training until then, "values": SWD x1e3 by level and "average", "spread" alike, "resolution"}
Point = Mapping[str, Any]
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
    (x, y), (other_x, other_y) = _curve(grown, by, level), _curve(other, by, level)
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


def figure(path: Path, curves: Mapping[str, Sequence[Point]], floor: Mapping[str, float]) -> Path | None:
    """Draw SWD per level against time and images; the first curve is the growing one, which others are compared with.

    Bands are the resolutions it had at its points; a border is midway between two of them. Returns None, and draws
    nothing, without matplotlib or points.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    points = [point for curve in curves.values() for point in curve]
    levels = list(dict.fromkeys(level for point in points for level in point["values"]))
    if not levels:
        return None
    levels.sort(key=lambda level: -int(level) if level.isdigit() else 0)
    values = [value for name in levels for curve in curves.values() for value in _curve(curve, "nimg", name)[1]]
    by_factors = bool(values) and max(values) > 5 * min(values)
    hours = max(point["seconds"] for point in points) > 2 * 3600
    units: dict[By, tuple[float, str]] = {
        "seconds": (3600, "hours of training") if hours else (60, "minutes of training"),
        "nimg": (1000, "kimg"),
    }
    page = Figure(figsize=(4.6 * len(levels), 7.6), layout="constrained")
    axes = page.subplots(2, len(levels), squeeze=False, sharex="row", sharey="col")
    for (by, (unit, label)), row in zip(units.items(), axes, strict=True):
        for axis, level in zip(row, levels, strict=True):
            for name, curve in curves.items():
                _line(axis, curve, by, unit, level, name)
            if level in floor:
                axis.axhline(floor[level], linestyle="--", linewidth=1.2, color="black", label="reals")
            axis.set_title(f"level {level}x{level}" if level.isdigit() else level, fontsize=13)
            if level == "average":
                _compare(axis, curves, by, unit)
            axis.set_xlabel(label, fontsize=12)
            axis.set_xlim(0, 1.02 * max(point[by] for point in points) / unit)
            _bands(axis, next(iter(curves.values())), by, unit)
            if by_factors:
                logarithmic(axis)
            else:
                axis.set_ylim(bottom=0)
            axis.tick_params(labelsize=11, labelleft=True)
            axis.grid(alpha=0.25)
        row[0].set_ylabel(value_title("swd"), fontsize=12)
    page.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(curves) + 1, fontsize=12)
    write_whole(path, lambda file: page.savefig(file, format="png", dpi=100))
    return path


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


def write_curves(
    out: Path, curves: Mapping[str, Sequence[Point]], floor: Mapping[str, float]
) -> tuple[str, list[Path]]:
    """Write time-to-quality.json, .md and, with matplotlib, .png into `out`; returns the text and the files written.

    curves: the growing run first, then the one it is compared with.
    """
    grown, other = curves.values()
    units: tuple[By, ...] = ("seconds", "nimg")
    levels = [*grown[0]["values"]]
    text = describe([speed_up(grown, other, by, level) for level in reversed(levels) for by in units])
    paths = [out / f"time-to-quality.{kind}" for kind in ("json", "md", "png")]
    write_json(paths[0], {"curves": curves, "floor": floor})
    write_text(paths[1], f"{text}\n")
    return text, paths if figure(paths[2], curves, floor) else paths[:2]


def _curve(points: Sequence[Point], by: By, level: str) -> tuple[np.ndarray, np.ndarray]:
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
    times = " and ".join(f"after {_span(speedup)} ({_verdict(speedup)})" for speedup in speedups)
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


def _verdict(speedup: SpeedUp) -> str:
    """'3.7 times as fast'."""
    if math.isnan(speedup.ratio):
        return "the ratio is not known"
    if speedup.grown.bound or speedup.other.bound:
        return f"at {'least' if speedup.grown.bound else 'most'} {speedup.ratio:.3g} times as fast"
    fast = speedup.ratio >= 1
    return f"{speedup.ratio if fast else 1 / speedup.ratio:.3g} times as {'fast' if fast else 'slow'}"


def _compare(axis: Any, curves: Mapping[str, Sequence[Point]], by: By, unit: float) -> None:
    """Mark where the first curve and the others reach the same value, and say in the title how much sooner it is."""
    grown, *others = curves
    verdicts = []
    for name in others:
        speedup = speed_up(curves[grown], curves[name], by)
        if speedup is not None:
            ends = [speedup.grown.at / unit, speedup.other.at / unit]
            axis.plot(ends, [speedup.target] * 2, color="black", linewidth=1.2, marker="|", markersize=10, zorder=4)
            verdicts.append(_verdict(speedup) + (f" as {name}" if len(others) > 1 else ""))
    if verdicts:
        axis.set_title(f"average: {grown} is {', '.join(verdicts)}", fontsize=13)


def _line(axis: Any, curve: Sequence[Point], by: By, unit: float, level: str, name: str) -> None:
    x, y = _curve(curve, by, level)
    line = axis.plot(x / unit, y, marker="o", markersize=4, linewidth=2, label=name)[0]
    spread = {point[by]: point.get("spread", {}).get(level) or 0.0 for point in curve}
    around = np.array([spread[at] for at in x])
    axis.fill_between(x / unit, y - around, y + around, color=line.get_color(), alpha=0.2, linewidth=0)


def _bands(axis: Any, curve: Sequence[Point], by: By, unit: float) -> None:
    """Shade every other resolution of the growing run."""
    steps = [(point[by] / unit, point.get("resolution")) for point in curve]
    borders = [(0.0, steps[0][1])] if steps else []
    for (before, old), (after, new) in pairwise(steps):
        if new != old:
            borders.append(((before + after) / 2, new))
    if len(borders) < 2:
        return
    ends = [start for start, _ in borders[1:]] + [steps[-1][0]]
    for i, ((start, resolution), end) in enumerate(zip(borders, ends, strict=True)):
        axis.axvspan(start, end, color="black", alpha=0.06 if i % 2 else 0.02, linewidth=0)
        if end - start > 0.04 * axis.get_xlim()[1]:  # wide enough for its name
            place = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "top", "color": "0.45"}
            axis.text((start + end) / 2, 0.985, resolution, fontsize=10, **place)


def logarithmic(axis: Any) -> None:
    """A logarithmic axis with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())
