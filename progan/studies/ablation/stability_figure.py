"""How runs end against their learning rate, drawn: the distance of each from the data, and the share of every fate."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from progan.metrics.suite import value_title
from progan.studies.ablation.time_to_quality_figure import logarithmic
from progan.support.files import write_whole

FATES = {"ends well": "#3a7d5c", "far from the data": "#e0b34c", "collapsed": "#c8553d", "diverged": "#4a4a55"}
SIDES = {"grown": "#1f77b4", "not grown": "#ff7f0e"}  # as in the curves of time to quality
WIDTH = 0.36

# Of a variant such as "WGAN-GP, grown": learning rate -> {"fate", "points": [{"swd", "ms_ssim"}]} of each seed.
Ends = Mapping[str, Mapping[float, Sequence[Mapping[str, Any]]]]


def figure(path: Path, ends: Ends, bound: float) -> Path | None:
    """A column per loss: above, SWD where each run ended, a line through the medians of a side; below, the fates.

    bound: the SWD x1e3 that a run which ends well does not exceed. Runs that diverged before they were measured are
    below alone. Returns None, and draws nothing, without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        return None
    losses = list(dict.fromkeys(variant.partition(", ")[0] for variant in ends))
    rates = sorted({rate for of in ends.values() for rate in of})
    page = Figure(figsize=(5.2 * len(losses), 6.4), layout="constrained")
    axes = page.subplots(2, len(losses), squeeze=False, sharex=True, sharey="row", height_ratios=(2, 1))
    for column, loss in enumerate(losses):
        above, below = axes[0, column], axes[1, column]
        for i, (side, colour) in enumerate(SIDES.items()):
            of = ends.get(f"{loss}, {side}", {})
            _distances(above, [of.get(rate, ()) for rate in rates], (i - 0.5) * 0.16, colour, side)
            _shares(below, [of.get(rate, ()) for rate in rates], (i - 0.5) * (WIDTH + 0.04), "//" if i else "")
        above.axhline(bound, linestyle="--", linewidth=1, color="0.4")
        above.set_title(loss, fontsize=13)
        logarithmic(above)
        above.grid(alpha=0.25)
        below.set(xlabel="times the learning rate", ylim=(0, 100))
        below.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        for axis in (above, below):
            axis.tick_params(length=0)
            for spine in ("top", "right"):
                axis.spines[spine].set_visible(False)
    axes[0, 0].set_ylabel(f"{value_title('swd', 'average')}, at the end")
    axes[1, 0].set_ylabel("% of the runs")
    axes[0, 0].legend(loc="upper left", frameon=False)
    fates = [Patch(color=colour, label=fate) for fate, colour in FATES.items()]
    fates += [Patch(facecolor="0.6", edgecolor="white", hatch=hatch, label=side)
              for side, hatch in (("left: grown", ""), ("right: not grown", "//"))]  # fmt: skip
    page.legend(handles=fates, loc="outside lower center", ncols=len(fates), frameon=False)
    write_whole(path, lambda file: page.savefig(file, format="png", dpi=100))
    return path


def _distances(axis: Any, by_rate: Sequence[Sequence[Mapping[str, Any]]], shift: float, colour: str, side: str) -> None:
    """A dot per run, a cross where it did not end well, and a line through the medians."""
    places, medians = [], []
    for place, runs in enumerate(by_rate):
        swds = [run["points"][-1]["swd"] if run["points"] else math.nan for run in runs]
        found = [(swd, run["fate"] == "ends well") for swd, run in zip(swds, runs, strict=True) if math.isfinite(swd)]
        for well, marker in ((True, "o"), (False, "X")):
            values = [swd for swd, so in found if so is well]
            axis.plot([place + shift] * len(values), values, marker, color=colour, markersize=7)
        if found:
            places.append(place + shift)
            medians.append(float(np.median([swd for swd, _ in found])))
    axis.plot(places, medians, color=colour, alpha=0.6, label=side)


def _shares(axis: Any, by_rate: Sequence[Sequence[Mapping[str, Any]]], shift: float, hatch: str) -> None:
    """A bar of fates at each rate."""
    for place, runs in enumerate(by_rate):
        fates = [run["fate"] for run in runs]
        bottom = 0.0
        for fate, colour in FATES.items():
            share = 100 * fates.count(fate) / max(1, len(fates))
            look = {"color": colour, "edgecolor": "white", "hatch": hatch, "linewidth": 0.5}
            axis.bar(place + shift, share, WIDTH, bottom=bottom, **look)
            bottom += share
