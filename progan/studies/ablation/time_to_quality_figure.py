"""SWD and MS-SSIM against time and against images, with growing and without, drawn (paper 6.2, figure 4)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from progan.metrics.suite import value_title
from progan.studies.ablation.speed_up import MS_SSIM, By, Point, speed_up, values_of, verdict
from progan.support.files import write_whole


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
    levels.sort(key=lambda level: -int(level) if level.isdigit() else int(level == MS_SSIM))
    distances = [level for level in levels if level != MS_SSIM]
    values = [value for name in distances for curve in curves.values() for value in values_of(curve, "nimg", name)[1]]
    by_factors = bool(values) and max(values) > 5 * min(values)
    hours = max(point["seconds"] for point in points) > 2 * 3600
    units: dict[By, tuple[float, str]] = {
        "seconds": (3600, "hours of training") if hours else (60, "minutes of training"),
        "nimg": (1000, "kimg"),
    }
    page = Figure(figsize=((4.6 if len(levels) < 4 else 3.6) * len(levels), 7.6), layout="constrained")
    axes = page.subplots(2, len(levels), squeeze=False, sharex="row", sharey="col")
    for (by, (unit, label)), row in zip(units.items(), axes, strict=True):
        for axis, level in zip(row, levels, strict=True):
            for name, curve in curves.items():
                _line(axis, curve, by, unit, level, name)
            if level in floor:
                axis.axhline(floor[level], linestyle="--", linewidth=1.2, color="black", label="reals")
            axis.set_title(_title(level), fontsize=13)
            if level == "average":
                _compare(axis, curves, by, unit)
            axis.set_xlabel(label, fontsize=12)
            axis.set_xlim(0, 1.02 * max(point[by] for point in points) / unit)
            _bands(axis, next(iter(curves.values())), by, unit)
            if by_factors and level != MS_SSIM:
                logarithmic(axis)
            else:
                axis.set_ylim(bottom=0)
            axis.tick_params(labelsize=11, labelleft=True)
            axis.grid(alpha=0.25)
        row[0].set_ylabel(value_title("swd"), fontsize=12)
    page.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(curves) + 1, fontsize=12)
    write_whole(path, lambda file: page.savefig(file, format="png", dpi=100))
    return path


def _title(level: str) -> str:
    if level == MS_SSIM:
        return value_title(MS_SSIM)
    return f"level {level}x{level}" if level.isdigit() else level


def _compare(axis: Any, curves: Mapping[str, Sequence[Point]], by: By, unit: float) -> None:
    """Mark where the first curve and the others reach the same value, and say in the title how much sooner it is."""
    grown, *others = curves
    verdicts = []
    for name in others:
        speedup = speed_up(curves[grown], curves[name], by)
        if speedup is not None:
            ends = [speedup.grown.at / unit, speedup.other.at / unit]
            axis.plot(ends, [speedup.target] * 2, color="black", linewidth=1.2, marker="|", markersize=10, zorder=4)
            verdicts.append(verdict(speedup) + (f" as {name}" if len(others) > 1 else ""))
    if verdicts:
        axis.set_title(f"average: {grown} is {', '.join(verdicts)}", fontsize=13)


def _line(axis: Any, curve: Sequence[Point], by: By, unit: float, level: str, name: str) -> None:
    x, y = values_of(curve, by, level)
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
