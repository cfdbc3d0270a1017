"""Which differences hold: intervals against SciPy's paired t-test."""

from typing import Any

import numpy as np
import pytest

from progan.studies.ablation.differences import T_975, differences, differences_table
from progan.studies.ablation.report import Value


class Row:
    """A row with one figure, seed by seed."""

    def __init__(self, name: str, base: str | None, values: dict[int, float], column: str = "swd average") -> None:
        self.name = name
        self.runs: list[dict[str, Any]] = [{"seed": seed, "base": base} for seed in sorted(values)]
        self.values = {column: Value(0.0, None, "", tuple(values[seed] for seed in sorted(values)))}


def test_intervals_are_those_of_the_paired_t_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for count in range(2, 12):
        both = rng.normal(20, 5, count)  # what a seed does to both
        one, other = both + rng.normal(2, 1, count), both + rng.normal(0, 1, count)
        rows = [
            Row(name, base, dict(enumerate(values))) for name, base, values in (("a", None, other), ("b", "a", one))
        ]
        (found,) = differences(rows)
        exact = stats.ttest_rel(one, other).confidence_interval(0.95)
        assert (found.row, found.base, found.seeds) == ("b", "a", count)
        assert [found.mean - found.margin, found.mean + found.margin] == pytest.approx(
            [exact.low, exact.high], abs=1e-3 * found.margin
        )
        assert found.holds == (exact.low > 0 or exact.high < 0)
    assert T_975[-1] > stats.t.ppf(0.975, len(T_975) + 1)


def test_only_seeds_that_both_rows_have_are_compared() -> None:
    base = Row("a", None, {0: 10.0, 1: 20.0, 3: 7.0})
    (found,) = differences([base, Row("b", "a", {1: 21.0, 2: 99.0, 3: 8.0})])
    assert (found.mean, found.margin, found.seeds, found.holds) == (1.0, 0.0, 2, True)
    assert differences([base, Row("b", "a", {0: 1.0, 2: 5.0})]) == []  # one seed in common
    assert differences([base, Row("b", "a", {0: 1.0, 1: float("nan")})]) == []
    assert differences([base, Row("b", "q", {0: 1.0, 1: 2.0})]) == []


def test_the_table_has_those_that_hold_in_bold() -> None:
    rows = [Row("a", None, {0: 10.0, 1: 20.0}), Row("b", "a", {0: 8.0, 1: 17.9}), Row("c", "a", {0: 11.0, 1: 19.0})]
    assert differences_table(differences(rows)).splitlines()[:4] == [
        "| difference | SWD x1e3 average | MS-SSIM | seeds |",
        "| --- | ---: | ---: | ---: |",
        "| b less a | **-2.05 ± 0.6353** |  | 2 |",
        "| c less a | +0 ± 12.71 |  | 2 |",
    ]
    assert differences_table([]) == ""
