"""How much sooner a growing run reaches the same quality (paper 6.2): runs with and without growing, side by side, each
at its own best learning rate; distances by images as the runs had them, by time as a step costs on the machine at hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from progan.evaluation.meter import number
from progan.metrics.suite import value_title
from progan.studies.ablation.rows import SCALES, chosen_rows
from progan.studies.ablation.speed_up import MS_SSIM, By, Point, describe, mean_curve, speed_up
from progan.studies.ablation.step_costs import Cost, kept_costs, spent
from progan.studies.ablation.study import Against, Study
from progan.studies.ablation.time_to_quality_figure import figure
from progan.studies.rows import Row, lr
from progan.studies.runner import run_experiments
from progan.studies.tables import markdown_table, not_there, write_figure
from progan.support.config_io import split_names
from progan.support.errors import ConfigError, printable
from progan.support.run_files import RunFolder
from progan.weights import load_network

CURVE = "curve.json"
SIDES = {"grown": "g", "not grown": "g-ungrown"}
Curve = list[dict[str, Any]]


def time_to_quality(study: Study, rows: Sequence[Row], rates: Sequence[float] = (1.0,)) -> tuple[str, list[Path]]:
    """Train and measure what is missing, write time-to-quality.json, .md and, with matplotlib, .png into the study's
    folder; returns the text and the files written. What is not there yet is named, as `Study.table` does.

    rates: learning rates to try, as multiples of the scale's. Each side is compared at the one whose seed 0 comes to
    the lowest average SWD; further seeds are of that rate alone. Seconds are those that a step costs on this machine,
    measured in turn once and kept in step-costs.json, not those of the runs, which were never alone on it.
    """
    sides = {
        name: {rate: at_rate(study, chosen_rows(row, rows)[0], rate, rows) for rate in rates}
        for name, row in SIDES.items()
    }
    tries = [row for of_side in sides.values() for row in of_side.values()]
    every = [*rows, *(row for row in tries if row not in rows)]
    study.check(tries, every)
    measure = CurveMeasure(study.reals, study.images or SCALES[study.scale].curve_images, study.mirror, study.device)
    first = run_experiments(replace(study, seeds=1).experiments_of(tries, every, measure, CURVE), study.place)
    records = iter(first.records)
    tried = {name: {rate: record for rate in rates if (record := next(records))} for name in sides}
    if not all(tried.values()):
        first.check()
        return not_there(first.missing), []
    best = {name: min(of_side, key=lambda rate: lowest(of_side[rate]["points"])) for name, of_side in tried.items()}
    chosen = [sides[name][rate] for name, rate in best.items()]
    others = run_experiments(study.experiments_of(chosen, every, measure, CURVE), study.place)
    about, costs = kept_costs(study.out / "step-costs.json", study.config(tries[0], 0, every))
    by_seed = (others.records[i :: study.seeds] for i in range(study.seeds))
    pairs = [(one, two) for one, two in by_seed if one and two]
    runs = {
        name: [timed(pair[side]["points"], costs, growing=name == "grown") for pair in pairs]
        for side, name in enumerate(sides)
    }
    text = "\n\n".join(filter(None, (_text(runs, tried, best, about), not_there([*first.missing, *others.missing]))))
    curves = {name: mean_curve(of_side) for name, of_side in runs.items()}
    floor = next(iter(tried["grown"].values()))["floor"]
    rates_tried = {name: {f"{rate:g}": record["points"] for rate, record in of.items()} for name, of in tried.items()}
    data = {
        "curves": curves, "floor": floor, "about": about, "best_rate": best, "seeds": runs, "rates": rates_tried,
    }  # fmt: skip
    written = write_figure(study.out, "time-to-quality", data, text, lambda path: figure(path, curves, floor))
    for outcome in (first, others):
        outcome.check(written)
    return text, written


def at_rate(study: Study, row: Row, rate: float, rows: Sequence[Row]) -> Row:
    """The row with so many times its learning rate; itself for 1."""
    if rate == 1:
        return row
    value = study.config(row, 0, rows).schedule.g_lr[4] * rate
    return Row(
        f"{row.name}-rate-{rate:g}", row.name, f"{row.title}, {rate:g} times the rate", at={study.scale: lr(value)}
    )


def chosen_rates(text: str) -> list[float]:
    """The numbers of "0.5,1,2", each once; raises ConfigError for others than numbers above 0."""
    try:
        rates = list(dict.fromkeys(float(word) for word in split_names(text)))
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < 1e6 for rate in rates):
        raise ConfigError(f"--rates: {printable(text)} is not allowed; use multiples above 0 such as 0.5,1,2")
    return rates


def lowest(points: Sequence[Point]) -> float:
    """The least average SWD of a run once it is fully grown; infinity when there is none."""
    whole = points[-1]["resolution"]
    found = [point["values"].get("average") for point in points if point["resolution"] == whole]
    return min((value for value in found if value is not None), default=float("inf"))


def timed(points: Sequence[Point], costs: Sequence[Cost], *, growing: bool) -> Curve:
    """The points with the seconds that the images until then cost; without growing, each what the last phase's do."""

    def seconds(nimg: int) -> float:
        return spent(costs, "seconds", nimg) if growing else nimg * costs[-1].seconds

    return [dict(point) | {"seconds": round(seconds(point["nimg"]), 1)} for point in points]


@dataclass(frozen=True)
class CurveMeasure(Against):
    """SWD and MS-SSIM of every snapshot of a finished run."""

    metrics: str = "swd,ms_ssim"

    def __call__(self, folder: RunFolder) -> dict[str, Any]:
        meter, points = None, []
        for path in sorted(folder.snapshots.glob("generator-*.safetensors")):
            g, about = load_network(path, "generator")
            meter = meter or self.meter(self.metrics, g.config.resolution)
            swd, ms_ssim = meter.measure(self.fakes(g, about))
            points.append(
                {
                    "nimg": about["nimg"],
                    "resolution": about["resolution"],
                    "values": swd.values | {MS_SSIM: ms_ssim.values[""]},
                    "spread": swd.spread | {MS_SSIM: ms_ssim.spread[""]},
                }
            )
        return {"points": points, "floor": swd.floor | {MS_SSIM: ms_ssim.floor[""]}}


def _text(
    runs: Mapping[str, Sequence[Curve]],
    tried: Mapping[str, Mapping[float, dict[str, Any]]],
    best: Mapping[str, float],
    about: Mapping[str, Any],
) -> str:
    """What came out, in sentences, and the table of the rates."""
    units: tuple[By, ...] = ("seconds", "nimg")
    grown, other = (mean_curve(of_side) for of_side in runs.values())
    levels = [level for level in reversed(grown[0]["values"]) if level != MS_SSIM]
    parts = [describe([speed_up(grown, other, by, level) for level in levels for by in units])]
    pairs = [speed_up(one, two, "seconds") for one, two in zip(*runs.values(), strict=True)]
    if len(pairs) > 1:
        ratios = ", ".join(f"{pair.ratio:.3g}" for pair in pairs if pair is not None)
        parts.append(f"Times as fast by time in SWD's average, seed by seed: {ratios}.")
    if any(len(of) > 1 for of in tried.values()):
        rows = [
            (name, f"{rate:g}", number(lowest(record["points"])), number(record["points"][-1]["values"]["average"]))
            for name, of in tried.items()
            for rate, record in of.items()
        ]
        title = value_title("swd", "average")
        heads = ("", "times the scale's learning rate", f"{title}, lowest", "at the end")
        chosen = " and ".join(f"{rate:g} {name}" for name, rate in best.items())
        parts.append(f"{markdown_table(heads, rows, words=1)}\nCompared at {chosen}.")
    parts.append("A step's cost: " + ", ".join(f"{name} {value}" for name, value in about.items()) + ".")
    return "\n\n".join(parts)
