"""The report of the ablation study: table, picture and plot of its rows (paper 6.1, table 1 and figure 3)."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from progan.evaluation.meter import number
from progan.images import write_png
from progan.metrics.suite import value_title
from progan.studies.ablation.differences import differences, differences_table
from progan.studies.ablation.rows import ROWS
from progan.studies.side_by_side import Block, side_by_side
from progan.studies.tables import markdown_table, plus_minus
from progan.support.errors import RunError
from progan.support.files import make_folder, write_json, write_text, write_whole

Record = Mapping[str, Any]

ORDER = tuple(row.name for row in ROWS)
METRICS = ("swd", "ms_ssim")
OVER_SEEDS = "standard deviation over seeds (n - 1)"

FACTS = {
    "scale": "scale {}",
    "resolution": "{0}x{0} pixels",
    "data": "trained on {}",
    "reals": "measured against {}",
    "machine": "{}",
    "device": "device {}",
    "precision": "numbers in {}",
    "torch": "torch {}",
    "missing": "not there yet: {}",
    "command": "`{}`",
}


@dataclass(frozen=True)
class Value:
    """One figure of one row.

    mean: over seeds, NaN if one of them is; spread: what `spread_is` says, None where there is none; seeds: one each.
    """

    mean: float
    spread: float | None
    spread_is: str
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class RowResult:
    """The runs of one row, by seed, and their figures: "swd 32", "swd average", "ms_ssim"."""

    name: str
    runs: Sequence[Record]
    values: Mapping[str, Value]

    def about(self, key: str) -> Any:
        """What all runs of the row share."""
        return self.runs[0][key]


def write_report(out: Path, records: Mapping[str, Sequence[Record]], facts: Mapping[str, Any]) -> list[Path]:
    """Write table.md, table.json, grid.png and, with matplotlib, table.png into `out`; returns their paths.

    records: row -> one record per seed; rows that did not run are left out. facts: about the study; any of FACTS, of
    which "resolution" must be there, and "reals_picture", a grid of reals. Pictures are named relative to `out`.
    Equal records and facts give equal bytes. Raises RunError when no row ran.
    """
    rows = results_of(records)
    if not rows:
        raise RunError(f"{out}: holds no finished row of the study; run at least one")
    floor = floor_of(rows)
    make_folder("--out", out)
    table, data, grid, plot = (out / name for name in ("table.md", "table.json", "grid.png", "table.png"))
    write_text(table, markdown(rows, floor, facts))
    write_json(data, as_json(rows, floor, facts))
    blocks = [Block(row.name, row.about("title"), out / row.about("picture")) for row in rows]
    if "reals_picture" in facts:
        blocks.append(Block("reals", "", out / facts["reals_picture"]))
    write_png(grid, side_by_side(blocks, facts["resolution"]))
    return [table, data, grid, *([plot] if draw(plot, rows, floor) else [])]


def results_of(records: Mapping[str, Sequence[Record]]) -> list[RowResult]:
    """The rows that ran, in the order of table 1, others after them by name."""
    ran = [name for name in records if records[name]]
    rows = []
    for name in sorted(ran, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        runs = sorted(records[name], key=lambda run: run["seed"])
        found: dict[str, list[tuple[float, float | None, str]]] = {}
        for column, level, result in _figures(runs, "values"):
            one = (_float(result["values"][level]), result["spread"].get(level), result["spread_is"])
            found.setdefault(column, []).append(one)
        rows.append(RowResult(name, runs, {column: _value(of_seeds) for column, of_seeds in found.items()}))
    return rows


def floor_of(rows: Sequence[RowResult]) -> dict[str, float]:
    """What reals have by the same measures: the noise floor of SWD, their own MS-SSIM; the mean over all runs."""
    found: dict[str, list[float]] = {}
    for role in ("floor", "reals"):
        for column, level, result in _figures([run for row in rows for run in row.runs], role):
            found.setdefault(column, []).append(_float(result[role][level]))
    return {column: _mean(values) for column, values in found.items()}


def markdown(rows: Sequence[RowResult], floor: Mapping[str, float], facts: Mapping[str, Any]) -> str:
    """The table for people, and below it what its numbers are. Bold is the lowest SWD of a column."""
    columns = _columns(rows)
    lowest = {column: min(_means(rows, column), default=None) for column in columns if column.startswith("swd")}
    titles = [value_title(*column.split()) for column in columns]
    heads = ["row", "what changes", *titles, "parameters G / D (M)", "kimg", "minutes"]
    lines = []
    for row in rows:
        cells = [row.name, row.about("title").replace("|", "\\|")]
        for column in columns:
            value = row.values.get(column)
            text = "" if value is None else plus_minus(value.mean, value.spread)
            cells.append(f"**{text}**" if value is not None and value.mean == lowest.get(column) else text)
        cells.append(" / ".join(number(row.about("parameters")[network] / 1e6) for network in "gd"))
        cells.append(f"{row.about('nimg') / 1000:g}")
        cells.append(number(_mean([run["seconds"] / 60 for run in row.runs])))
        lines.append(cells)
    lines.append(["reals", "", *(number(floor.get(column)) for column in columns), "", "", ""])
    about = ", ".join(text.format(facts[key]) for key, text in FACTS.items() if key in facts)
    held = differences_table(differences(rows))
    parts = [markdown_table(heads, lines, words=2), f"{_meaning(rows)}\n", held, f"{about[:1].upper()}{about[1:]}.\n"]
    return "\n".join(part for part in parts if part)


def as_json(rows: Sequence[RowResult], floor: Mapping[str, float], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The table for programs. A figure that is not finite is null, as JSON has no other word for it."""
    table = {
        row.name: {
            "title": row.about("title"),
            "base": row.about("base"),
            "seeds": [run["seed"] for run in row.runs],
            "values": {column: asdict(value) for column, value in row.values.items()},
            "parameters": row.about("parameters"),
            "nimg": row.about("nimg"),
            "seconds": [run["seconds"] for run in row.runs],
        }
        for row in rows
    }
    held = [one.as_json() for one in differences(rows)]
    return _finite({"facts": facts, "rows": table, "floor": floor, "differences": held})


def draw(path: Path, rows: Sequence[RowResult], floor: Mapping[str, float]) -> bool:
    """Plot SWD and MS-SSIM by row: means with their spread, each seed a dot, reals dashed. False: no matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(max(9.0, 4.0 + len(rows)), 4.4), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
        shown = [column for column in _columns(rows) if column.split()[0] == metric]
        for column in shown:
            _line(axis, rows, column, floor, main=column == shown[-1])
        names = [row.name for row in rows]
        axis.set_xticks(range(len(rows)), names, rotation=25 if max(map(len, names)) > 4 else 0)
        axis.set_xlim(-0.5, len(rows) - 0.5)
        axis.set_ylabel(value_title(metric))
        axis.grid(alpha=0.3)
        means = [mean for column in shown for mean in _means(rows, column)]
        if means and max(means) > 10 * min(means) > 0:  # a collapsed row would press the others flat
            axis.set_yscale("log")
        elif means:
            axis.set_ylim(bottom=0)
        if means:
            axis.legend(fontsize="small")
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=110))
    return True


def _line(axis: Any, rows: Sequence[RowResult], column: str, floor: Mapping[str, float], *, main: bool) -> None:
    """One figure over all rows that have it; the main one with every seed and with what reals have."""
    found = [(x, row.values[column]) for x, row in enumerate(rows) if column in row.values]
    at, means, errors = zip(*((x, value.mean, value.spread or 0.0) for x, value in found), strict=True)
    level = column.partition(" ")[2]
    how = {"linewidth": 2.2, "markersize": 7, "zorder": 3} if main else {"linewidth": 1, "markersize": 4, "alpha": 0.7}
    label = f"{level}x{level}" if level.isdigit() else level or "generated"
    bars = axis.errorbar(at, means, errors, marker="o", capsize=3, label=label, **how)
    if main:
        seeds = [(x, seed) for x, value in found if len(value.seeds) > 1 for seed in value.seeds]
        axis.plot([x for x, _ in seeds], [y for _, y in seeds], ".k", markersize=4, zorder=4)
        if column in floor:
            axis.axhline(floor[column], linestyle="--", linewidth=1.2, color=bars[0].get_color(), label="reals")


def _meaning(rows: Sequence[RowResult]) -> str:
    """What the table's numbers are."""
    counts = {len(row.runs): [other.name for other in rows if len(other.runs) == len(row.runs)] for row in rows}
    seeds = [f"{count} (rows {' '.join(names)})" if len(counts) > 1 else f"{count}" for count, names in counts.items()]
    kinds = {}  # a dict, as a set has no order
    for row in rows:
        for column, value in row.values.items():
            whose = value_title(column.split()[0]) + (", rows of one seed" if len(counts) > 1 else "")
            if value.spread is not None:
                kinds[value.spread_is + (f" ({whose})" if len(value.seeds) == 1 else "")] = True
    return (
        f"Seeds: {', '.join(seeds)}. ±: {', '.join(kinds) or 'none'}. Bold: the lowest. Reals: the SWD of other reals,"
        " which is its noise floor, and the reals' own MS-SSIM. Minutes: of training, mean over seeds."
    )


def _figures(runs: Sequence[Record], role: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(column, level, result) of every number under `role` of a result, in the table's order: finest level first."""
    every = [(result, level) for run in runs for result in run["results"] for level in result.get(role, {})]
    metrics = [*METRICS, *(result["metric"] for result, _ in every)]
    for result, level in sorted(
        every, key=lambda it: (metrics.index(it[0]["metric"]), -int(it[1]) if it[1].isdigit() else 0)
    ):
        yield f"{result['metric']} {level}".rstrip(), level, result


def _columns(rows: Sequence[RowResult]) -> list[str]:
    return list(dict.fromkeys(column for column, _, _ in _figures([run for row in rows for run in row.runs], "values")))


def _means(rows: Sequence[RowResult], column: str) -> list[float]:
    means = [row.values[column].mean for row in rows if column in row.values]
    return [mean for mean in means if math.isfinite(mean)]


def _value(of_seeds: Sequence[tuple[float, float | None, str]]) -> Value:
    """From (value, its own spread, what that is) of each seed."""
    seeds = tuple(value for value, _, _ in of_seeds)
    if len(seeds) == 1:
        return Value(seeds[0], *of_seeds[0][1:], seeds)
    spread = statistics.stdev(seeds) if all(map(math.isfinite, seeds)) else None
    return Value(_mean(seeds), spread, OVER_SEEDS, seeds)


def _mean(values: Sequence[float]) -> float:
    return statistics.mean(values) if all(map(math.isfinite, values)) else math.nan


def _float(value: float | None) -> float:
    return math.nan if value is None else value


def _finite(value: Any) -> Any:
    """The same with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
