"""The same quality, how much sooner: curves whose ratio is known, and a slow search on a fine grid."""

import math
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from progan.studies.ablation.speed_up import Reached, describe, speed_up
from progan.studies.ablation.time_to_quality_figure import figure

Curve = list[dict[str, Any]]


def curve(at: Any, values: Any, sec_per_img: float = 1.0, **more: Any) -> Curve:
    return [
        {"nimg": x, "seconds": x * sec_per_img, "values": {"16": y, "average": y}, "spread": {"average": 0.1}, **more}
        for x, y in zip(at, values, strict=True)
    ]


def falling(tau: float, at: Any, sec_per_img: float = 1.0) -> Curve:
    return curve(at, [50 * math.exp(-x / tau) for x in at], sec_per_img)


def test_exponentials_have_the_ratio_of_their_time_constants() -> None:
    grown, other = falling(2000, range(300, 9000, 700)), falling(6000, range(500, 10001, 500))
    found = speed_up(grown, other, "nimg")
    assert found is not None
    assert found.weaker == "other"
    assert found.target == pytest.approx(50 * math.exp(-10 / 6))
    assert found.other == Reached(10000, bound=False)
    assert found.grown.at == pytest.approx(10000 / 3)
    assert found.ratio == pytest.approx(3)
    targets = [target for target, _ in found.curve]
    assert len(targets) == 9
    assert targets == sorted(targets, reverse=True)
    assert targets[-1] == found.target
    assert all(ratio == pytest.approx(3) for _, ratio in found.curve)


def test_time_and_images_are_counted_apart() -> None:
    grown, other = falling(2000, range(100, 9000, 100), 0.5), falling(6000, range(100, 9001, 100), 2.0)
    by = {by: speed_up(grown, other, by, "16") for by in ("seconds", "nimg")}
    assert by["nimg"].ratio == pytest.approx(3)
    assert by["seconds"].ratio == pytest.approx(12)
    assert by["seconds"].other.at == pytest.approx(18000)


def test_the_first_crossing_counts_and_lies_on_a_logarithmic_axis() -> None:
    dips = curve([1, 3, 4, 5], [100, 1, 80, 2])
    slow = curve([2, 10], [100, 10])
    found = speed_up(dips, slow, "nimg")
    assert found.grown.at == pytest.approx(2)  # 10 is halfway from 100 to 1
    assert found.ratio == pytest.approx(5)


def first_on_a_grid(points: Curve, target: float, step: float) -> float:
    for before, after in pairwise(points):
        x = before["nimg"]
        while x < after["nimg"]:
            part = (x - before["nimg"]) / (after["nimg"] - before["nimg"])
            a, b = (point["values"]["average"] for point in (before, after))
            if a ** (1 - part) * b**part <= target:
                return x
            x += step
    return points[-1]["nimg"]


@pytest.mark.parametrize("seed", range(8))
def test_a_slow_search_finds_the_same_crossings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grown, other = (
        curve(np.cumsum(rng.uniform(1, 3, 12)), 60 * np.exp(-np.arange(12) / tau + rng.normal(0, 0.3, 12)))
        for tau in (3, 6)
    )
    found = speed_up(grown, other, "nimg")
    lowest = [min(point["values"]["average"] for point in points) for points in (grown, other)]
    assert found.target == max(lowest)
    assert found.weaker == ("other" if lowest[1] > lowest[0] else "grown")
    assert found.curve
    for target, ratio in found.curve:
        expected = [first_on_a_grid(points, target, 0.002) for points in (grown, other)]
        assert ratio == pytest.approx(expected[1] / expected[0], rel=0.005)


def test_a_worse_growing_run_is_said_to_be_slow() -> None:
    found = [speed_up(falling(6000, range(100, 9001, 100)), falling(2000, range(100, 9001, 100)), "nimg")]
    assert found[0].weaker == "grown"
    assert found[0].ratio == pytest.approx(1 / 3)
    assert describe(found) == (
        "SWD x1e3 average of 11.16, the best with growing, was reached after 9 kimg with growing and 3 without"
        " (3 times as slow). From 40.48 down to there growing"  # 47.56 (11.16 / 47.56)^(1/9)
        " was 0.333 to 0.333 times as fast by images."
    )


def test_a_run_that_was_there_when_first_measured_gives_a_bound_only() -> None:
    slow, early = curve([10, 20], [90, 50]), curve([4, 8], [40, 30])
    found = speed_up(early, slow, "nimg")
    assert (found.grown, found.other) == (Reached(4, bound=True), Reached(20, bound=False))
    assert (found.ratio, found.curve) == (5, ())
    assert "after at most 0.004 kimg with growing and 0.02 without (at least 5 times as fast)" in describe([found])
    assert "The run without growing never came below the first value measured with growing" in describe([found])
    turned = speed_up(slow, early, "nimg")
    assert turned.ratio == 0.2
    assert "0.02 kimg with growing and at most 0.004 without (at most 0.2 times as fast)" in describe([turned])


def test_nothing_is_said_where_nothing_is_known() -> None:
    worse, better = curve([10, 20], [50, 90]), curve([4, 8], [40, 30])
    found = speed_up(better, worse, "nimg")
    assert found.grown.bound
    assert found.other.bound
    assert math.isnan(found.ratio)
    assert "(the ratio is not known)" in describe([found])
    assert "without growing was at its best when first measured" in describe([found])
    at_start = speed_up(curve([0, 8], [40, 30]), curve([0, 20], [90, 50]), "nimg")
    assert at_start.grown == Reached(0, bound=False)
    assert math.isnan(at_start.ratio)
    assert speed_up([], better, "nimg") is None
    assert describe([None]) == "Not measured: one of the runs has no values."


def test_points_of_a_collapsed_run_are_left_out() -> None:
    grown = curve([1, 2, 3, 4, 5, 6], [100, math.nan, None, 1, 0, math.inf])
    found = speed_up(grown, curve([2, 10, 11], [100, 10, 0]), "nimg")
    assert found.grown.at == pytest.approx(2.5)
    assert found.ratio == pytest.approx(4)
    assert speed_up(curve([1], [math.nan]), grown, "nimg") is None


def test_time_and_images_share_a_sentence_and_levels_do_not() -> None:
    grown, other = falling(2000, range(300, 18000, 300), 1.0), falling(6000, range(300, 18001, 300), 1.0)
    text = describe([speed_up(grown, other, by, level) for level in ("average", "16") for by in ("seconds", "nimg")])
    average, level = text.split("\n\n")
    assert average.startswith(
        "SWD x1e3 average of 2.489, the best without growing, was reached after 1.67 hours with growing and 5 without"
        " (3 times as fast) and after 6 kimg with growing and 18 without (3 times as fast)."
    )
    assert average.endswith("growing was 3 to 3 times as fast by time and 3 to 3 times as fast by images.")
    assert level.startswith("SWD x1e3 at 16x16 of 2.489, the best without growing")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were written."""
    module = pytest.importorskip("matplotlib.figure", reason="pip install 'progan[plot]'")
    figures: list[Any] = []
    save: Callable[..., None] = module.Figure.savefig
    monkeypatch.setattr(module.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    return figures


def test_the_figure_shows_every_level_by_time_and_by_images(drawn: list[Any], tmp_path: Path) -> None:
    grown, other = falling(2000, range(500, 9001, 500), 0.1), falling(6000, range(500, 9001, 500), 0.4)
    for point in grown:
        point["resolution"] = 8 if point["nimg"] <= 4000 else 16
    floor = {"16": 2.0, "average": 2.0}
    path = tmp_path / "figure.png"
    assert figure(path, {"growing": grown, "whole": other}, floor) == path
    assert path.read_bytes().startswith(b"\x89PNG")
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes] == [
        "level 16x16",
        "average: growing is 12 times as fast",
        "level 16x16",
        "average: growing is 3 times as fast",
    ]
    for axis, unit in zip(axes, (600, 600, 1000, 1000), strict=True):
        line = next(line for line in axis.lines if line.get_label() == "growing")
        assert line.get_xdata() == pytest.approx([point["nimg"] / unit for point in grown])
        assert line.get_ydata() == pytest.approx([point["values"]["average"] for point in grown])
        reals = next(line for line in axis.lines if line.get_label() == "reals")
        assert set(reals.get_ydata()) == {2.0}
        assert [text.get_text() for text in axis.texts] == ["8", "16"]
        assert axis.get_yscale() == "log"
    again = tmp_path / "again.png"
    figure(again, {"growing": grown, "whole": other}, floor)
    assert again.read_bytes() == path.read_bytes()


def test_three_curves_a_flat_one_and_missing_values_can_be_drawn(drawn: list[Any], tmp_path: Path) -> None:
    curves = {"growing": curve([1, 2], [40, 30]), "whole": curve([1, 2], [45, 35]), "failed": curve([1], [math.nan])}
    assert figure(tmp_path / "figure.png", curves, {}) is not None
    assert drawn[0].axes[0].get_yscale() == "linear"
    assert drawn[0].axes[1].get_title().endswith("times as fast as whole")


def test_without_points_or_matplotlib_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert figure(tmp_path / "figure.png", {"growing": []}, {}) is None
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert figure(tmp_path / "figure.png", {"growing": curve([1, 2], [40, 30])}, {}) is None
    assert not list(tmp_path.iterdir())
