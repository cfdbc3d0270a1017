"""Which differences between the rows of a study hold, whatever the seed: paired intervals (paper 6.1, table 1)."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from progan.evaluation.meter import number
from progan.metrics.suite import value_title
from progan.studies.tables import markdown_table

# Student's t, 97.5%, for 1, 2, ... degrees of freedom; for more the last, which is a little wide.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
COLUMNS = ("swd average", "ms_ssim")


class RowFigures(Protocol):
    """A row's runs in the order of their seeds, and its figures."""

    @property
    def name(self) -> str: ...
    @property
    def runs(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def values(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Difference:
    """A row's figure less that of its base, over the seeds that both have.

    margin: half of the 95% interval of the mean, by Student's t over the seeds' own differences. A seed gives both
    rows the same data in the same order, so what it does to both alike falls away.
    """

    row: str
    base: str
    column: str
    mean: float
    margin: float
    seeds: int

    @property
    def holds(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.mean) > self.margin

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self) | {"holds": self.holds}


def differences(rows: Iterable[RowFigures]) -> list[Difference]:
    """Of every row against its base, where both have two seeds or more in common and no value is missing."""
    by_name = {row.name: row for row in rows}
    found = []
    for row in by_name.values():
        base = by_name.get(row.runs[0]["base"])
        if base is None:
            continue
        for column in COLUMNS:
            mine, theirs = _by_seed(row, column), _by_seed(base, column)
            pairs = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
            if len(pairs) > 1 and all(map(math.isfinite, pairs)):
                t = T_975[min(len(pairs) - 2, len(T_975) - 1)]
                margin = t * statistics.stdev(pairs) / math.sqrt(len(pairs))
                found.append(Difference(row.name, base.name, column, statistics.mean(pairs), margin, len(pairs)))
    return found


def differences_table(found: Sequence[Difference]) -> str:
    """For people, in Markdown; empty where there are none."""
    if not found:
        return ""
    names = list(dict.fromkeys((one.row, one.base) for one in found))
    by_place = {(one.row, one.column): one for one in found}
    lines = []
    for row, base in names:
        cells = [f"{row} less {base}"]
        for column in COLUMNS:
            one = by_place.get((row, column))
            text = "" if one is None else f"{one.mean:+.3g} ± {number(one.margin)}"
            cells.append(f"**{text}**" if one is not None and one.holds else text)
        lines.append([*cells, f"{max(one.seeds for one in found if one.row == row)}"])
    heads = ("difference", *(value_title(*column.split()) for column in COLUMNS), "seeds")
    return (
        f"{markdown_table(heads, lines, words=1)}\n"
        "Differences seed by seed, with 95% intervals of their mean (Student's t). Bold: those that leave out 0.\n"
    )


def _by_seed(row: RowFigures, column: str) -> dict[int, float]:
    value = row.values.get(column)
    return {} if value is None else {run["seed"]: own for run, own in zip(row.runs, value.seeds, strict=True)}
