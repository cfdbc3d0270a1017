"""The fates of runs against their learning rate, drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from progan.support.files import write_whole

FATES = {"ends well": "#3a7d5c", "far from the data": "#e0b34c", "collapsed": "#c8553d", "diverged": "#4a4a55"}
WIDTH = 0.36

# Of a variant such as "WGAN-GP, grown": learning rate -> the fate of each seed.
Fates = Mapping[str, Mapping[float, Sequence[str]]]


def figure(path: Path, fates: Fates) -> Path | None:
    """A panel per loss; at each rate a bar of the growing runs, and right of it, hatched, one of those that do not.

    Returns None, and draws nothing, without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        return None
    losses = list(dict.fromkeys(variant.partition(", ")[0] for variant in fates))
    page = Figure(figsize=(5.2 * len(losses), 4.2), layout="constrained")
    for axis, loss in zip(page.subplots(1, len(losses), squeeze=False, sharey=True)[0], losses, strict=True):
        sides = [variant for variant in fates if variant.startswith(f"{loss}, ")]
        rates = sorted({rate for variant in sides for rate in fates[variant]})
        for side, variant in enumerate(sides):
            for place, rate in enumerate(rates):
                seeds = fates[variant].get(rate, ())
                bottom = 0.0
                for fate, colour in FATES.items():
                    share = 100 * list(seeds).count(fate) / max(1, len(seeds))
                    look = {"color": colour, "edgecolor": "white", "hatch": "//" if side else "", "linewidth": 0.5}
                    axis.bar(place + (side - 0.5) * (WIDTH + 0.04), share, WIDTH, bottom=bottom, **look)
                    bottom += share
        axis.set_xticks(range(len(rates)), [f"x {rate:g}" for rate in rates])
        axis.set(title=loss, xlabel="learning rate", ylim=(0, 100))
        axis.tick_params(length=0)
        for spine in ("top", "right"):
            axis.spines[spine].set_visible(False)
    page.axes[0].set_ylabel("% of the runs")
    kinds = [Patch(color=colour, label=fate) for fate, colour in FATES.items()]
    kinds += [Patch(facecolor="0.6", edgecolor="white", hatch=hatch, label=side)
              for side, hatch in (("left: grown", ""), ("right: not grown", "//"))]  # fmt: skip
    page.legend(handles=kinds, loc="outside lower center", ncols=len(kinds), frameon=False)
    write_whole(path, lambda file: page.savefig(file, format="png", dpi=100))
    return path
