"""How much sooner growing shows as many images (paper 6.2, figure 4c), from the cost of a step at every resolution."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from progan.config import TrainConfig
from progan.studies.ablation.step_costs import ROUNDS, Cost, Of, measure_costs, spent
from progan.studies.ablation.time_to_quality_figure import logarithmic
from progan.studies.tables import markdown_table, write_figure
from progan.support.device import machine, pick_device, pick_precision
from progan.support.files import make_folder, write_whole
from progan.support.progress import duration


def speed_ups(costs: Sequence[Cost], of: Of) -> list[float]:
    """At the end of each phase: how many times as long it takes to show as many images without growing."""
    return [_speed_up(costs, of, cost.stop_nimg) for cost in costs]


def training_speed(name: str, config: TrainConfig, out: Path, rounds: int = ROUNDS) -> tuple[str, list[Path]]:
    """Measure, and write training-speed.json, .md and, with matplotlib, .png: the text, and the files written."""
    device = pick_device(config.device)
    config = replace(config, precision=pick_precision(config.precision, device))
    make_folder("--out", out)
    costs = measure_costs(config, rounds)
    about = machine(device) | {"config": name, "precision": config.precision, "rounds": rounds}
    text = report(about, costs)
    data = {"about": about, "phases": [asdict(cost) for cost in costs]}
    return text, write_figure(out, "training-speed", data, text, lambda path: figure(path, name, costs))


def report(about: dict[str, Any], costs: Sequence[Cost]) -> str:
    """A sentence and a table in Markdown."""
    rows = [
        (
            f"{cost.resolution}x{cost.resolution}",
            "fade" if cost.fading else "stable",
            f"{cost.stop_nimg / 1000:,g}",
            f"{cost.batch}",
            f"{_short(1000 * cost.seconds)} ({_short(1000 * cost.least)} to {_short(1000 * cost.most)})",
            _short(cost.flops / 1e9),
            _short(measured),
            _short(counted),
        )
        for cost, measured, counted in zip(costs, speed_ups(costs, "seconds"), speed_ups(costs, "flops"), strict=True)
    ]
    heads = (
        "resolution",
        "phase",
        "until kimg",
        "batch",
        "ms per image",
        "GFLOP per image",
        "times as fast until then",
    )
    facts = ", ".join(f"{name} {value}" for name, value in about.items())
    return f"{_in_words(costs)}\n\n{markdown_table((*heads, 'by multiplies alone'), rows, words=2)}\n{facts}\n"


def figure(path: Path, name: str, costs: Sequence[Cost]) -> Path | None:
    """Images against hours, and the speed-up against images; returns None, and draws nothing, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    page = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = page.subplots(1, 2)
    shown = [0.0, *(cost.stop_nimg / 1e6 for cost in costs)]
    grown = [0.0, *accumulate((cost.stop_nimg - cost.start_nimg) * cost.seconds / 3600 for cost in costs)]
    whole = 1e6 * costs[-1].seconds / 3600  # hours per million images
    left.plot(grown, shown, linewidth=2, label="grown")
    left.plot([0, grown[-1]], [0, grown[-1] / whole], linewidth=2, label="not grown")
    left.set(xlabel="hours of training", ylabel="million real images shown", title=name)
    left.set_xlim(0, grown[-1])
    left.set_ylim(bottom=0)
    left.legend(loc="upper left")
    grid = [shown[-1] * share / 500 for share in range(1, 501)]
    for of, style, label in (("seconds", "-", "measured"), ("flops", "--", "by multiplies alone")):
        right.plot(grid, [_speed_up(costs, of, 1e6 * at) for at in grid], style, linewidth=2, label=label)  # type: ignore[arg-type]
    right.set(xlabel="million real images shown", ylabel="times as fast as not grown")
    right.set_title(f"{speed_ups(costs, 'seconds')[-1]:.3g} times at the end")
    right.set_xlim(0, shown[-1])
    right.set_ylim(bottom=1)
    logarithmic(right)
    right.legend()
    for axis, places in ((left, grown), (right, shown)):
        _bands(axis, costs, places)
        axis.grid(alpha=0.25)
    write_whole(path, lambda file: page.savefig(file, format="png", dpi=100))
    return path


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _in_words(costs: Sequence[Cost]) -> str:
    total = sum((cost.stop_nimg - cost.start_nimg) * cost.seconds for cost in costs)
    last, ratios = costs[-1], speed_ups(costs, "seconds")
    text = (
        f"With growing, the {last.stop_nimg / 1000:,g} kimg of this schedule take {duration(total)} on this machine;"
        f" without, {duration(last.stop_nimg * last.seconds)}: {ratios[-1]:.3g} times as fast."
    )
    if len(costs) > 1:
        text += (
            f" When the last block is in, after {last.start_nimg / 1000:,g} kimg, it is {ratios[-2]:.3g} times."
            " From there on both take the same time for an image."
        )
    return text


def _speed_up(costs: Sequence[Cost], of: Of, nimg: float) -> float:
    return float(nimg * getattr(costs[-1], of) / spent(costs, of, nimg))


def _bands(axis: Any, costs: Sequence[Cost], places: Sequence[float]) -> None:
    """Shade every other resolution, and name it where there is room."""
    for cost, start, stop in zip(costs, places, places[1:], strict=False):
        odd = cost.resolution.bit_length() % 2
        axis.axvspan(start, stop, color="black", alpha=0.06 if odd else 0.02, linewidth=0)
        if not cost.fading and stop - start > 0.035 * places[-1]:
            place = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "bottom", "color": "0.45"}
            axis.text((start + stop) / 2, 0.01, cost.resolution, fontsize=9, **place)
