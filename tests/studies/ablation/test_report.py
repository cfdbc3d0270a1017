"""The report of the ablation study says what its records say, in the order of table 1."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from progan.studies.ablation.report import write_report
from progan.support.errors import RunError

Records = dict[str, list[dict[str, Any]]]

FACTS = {
    "scale": "small",
    "resolution": 32,
    "data": "faces 0b0d",
    "reals": "held-out faces 77aa",
    "machine": "2 cores",
    "device": "cpu",
    "torch": "2.13.0",
    "command": "progan ablate --scale small",
}
COLOURS = {"a": (200, 0, 0), "b": (0, 200, 0), "e*": (0, 0, 200), "e": (200, 200, 0), "h": (0, 200, 200)}
REALS = (200, 0, 200)


def result(metric: str, values: dict[str, float], reals: dict[str, float]) -> dict[str, Any]:
    swd = metric == "swd"
    return {
        "metric": metric,
        "values": values,
        "spread": dict.fromkeys(values, 0.25 if swd else 0.002),
        "spread_is": "standard error over 8 parts of the fakes" if swd else "standard error over pairs",
        "floor" if swd else "reals": reals,
    }


def record(row: str, seed: int, fine: float, coarse: float, similarity: float, **more: Any) -> dict[str, Any]:
    """Levels come in a wrong order here, as from a file with sorted keys."""
    swd = {"16": coarse, "32": fine, "average": (fine + coarse) / 2}
    return {
        "row": row,
        "title": f"what {row} changes",
        "base": "a",
        "seed": seed,
        "seconds": 60.0 * (seed + 1),
        "nimg": 40_500,
        "parameters": {"g": 1_296_908, "d": 51_234},
        "results": [
            result("ms_ssim", {"": similarity}, {"": 0.25}),
            result("swd", swd, {"16": 2.0, "32": 3.0, "average": 2.5}),
        ],
        "picture": f"{row.strip('*')}{len(row)}.png",
        **more,
    }


@pytest.fixture
def records() -> Records:
    return {
        "e": [record("e", 0, 12, 9, 0.24), record("e", 1, 15, 7, 0.26)],
        "zz": [record("zz", 0, 31, 32, 0.31)],
        "h": [],
        "e*": [record("e*", 1, 22, 6, 0.2), record("e*", 0, 20, 7, 0.3)],
        "a": [record("a", 0, 60.123456, 52.0, 0.28)],
    }


@pytest.fixture
def plotted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were written."""
    module = pytest.importorskip("matplotlib.figure", reason="pip install 'progan[plot]'")
    figures: list[Any] = []
    save: Callable[..., None] = module.Figure.savefig
    monkeypatch.setattr(module.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    return figures


@pytest.fixture(autouse=True)
def _no_matplotlib(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take a second, which only the tests of plots spend."""
    if "plotted" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


def grid_of(path: Path, colour: tuple[int, int, int], side: int = 32) -> None:
    Image.new("RGB", (8 * side, 8 * side), colour).save(path)


def cells_of(out: Path) -> list[list[str]]:
    lines = (out / "table.md").read_text().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_means_and_spreads_in_the_papers_order(records: Records, tmp_path: Path) -> None:
    write_report(tmp_path, records, FACTS)
    heads, rule, *rows = cells_of(tmp_path)
    assert heads[2:6] == ["SWD x1e3 32", "SWD x1e3 16", "SWD x1e3 average", "MS-SSIM"]
    assert heads[6:] == ["parameters G / D (M)", "kimg", "minutes"]
    assert rule == ["---"] * 2 + ["---:"] * 7
    assert [row[0] for row in rows] == ["a", "e*", "e", "zz", "reals"]
    table = {row[0]: row[1:] for row in rows}
    over_seeds = {
        "e*": [(22, 20), (6, 7), (14, 13.5), (0.2, 0.3)],
        "e": [(12, 15), (9, 7), (10.5, 11), (0.24, 0.26)],
    }
    for name, columns in over_seeds.items():
        for text, seeds in zip(table[name][1:5], columns, strict=True):
            assert text.strip("*") == f"{np.mean(seeds):.4g} ± {np.std(seeds, ddof=1):.4g}"
    assert table["a"][:5] == ["what a changes", "60.12 ± 0.25", "52 ± 0.25", "56.06 ± 0.25", "0.28 ± 0.002"]
    assert table["a"][5:] == ["1.297 / 0.05123", "40.5", "1"]
    assert table["e"][-1] == "1.5"
    assert table["reals"] == ["", "3", "2", "2.5", "0.25", "", "", ""]


def test_the_lowest_distance_of_a_column_is_bold(records: Records, tmp_path: Path) -> None:
    write_report(tmp_path, records, FACTS)
    heads, _, *rows = cells_of(tmp_path)
    bold = [(row[0], head) for row in rows for head, cell in zip(heads, row, strict=True) if cell.startswith("**")]
    assert bold == [("e*", "SWD x1e3 16"), ("e", "SWD x1e3 32"), ("e", "SWD x1e3 average")]
    assert sum(cell.endswith("**") for row in rows for cell in row) == 3


def test_below_the_table_stands_what_the_spread_is(records: Records, tmp_path: Path) -> None:
    write_report(tmp_path, records, FACTS)
    _, mixed, facts = (tmp_path / "table.md").read_text().split("\n\n")
    assert mixed.startswith(
        "Seeds: 1 (rows a zz), 2 (rows e* e)."
        " ±: standard error over 8 parts of the fakes (SWD x1e3, rows of one seed),"
        " standard error over pairs (MS-SSIM, rows of one seed), standard deviation over seeds (n - 1)."
    )
    assert facts == (
        "Scale small, 32x32 pixels, trained on faces 0b0d, measured against held-out faces 77aa, 2 cores, device cpu,"
        " torch 2.13.0, `progan ablate --scale small`.\n"
    )
    write_report(tmp_path, {"e": records["e"]}, FACTS)
    assert "Seeds: 2. ±: standard deviation over seeds (n - 1). Bold" in (tmp_path / "table.md").read_text()
    write_report(tmp_path, {"a": records["a"]}, FACTS)
    text = (tmp_path / "table.md").read_text()
    assert "Seeds: 1. ±: standard error over 8 parts of the fakes (SWD x1e3), standard error over pairs" in text


def test_the_json_has_every_seed(records: Records, tmp_path: Path) -> None:
    write_report(tmp_path, records, FACTS)
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["facts"] == FACTS
    assert list(table["rows"]) == ["a", "e*", "e", "zz"]
    assert table["floor"] == {"swd 32": 3, "swd 16": 2, "swd average": 2.5, "ms_ssim": 0.25}
    row = table["rows"]["e*"]
    assert (row["title"], row["base"], row["seeds"], row["seconds"]) == ("what e* changes", "a", [0, 1], [60, 120])
    assert (row["nimg"], row["parameters"]) == (40_500, {"g": 1_296_908, "d": 51_234})
    assert row["values"]["swd 32"] == {
        "mean": 21,
        "spread": pytest.approx(math.sqrt(2)),
        "spread_is": "standard deviation over seeds (n - 1)",
        "seeds": [20, 22],
    }
    assert table["rows"]["a"]["values"]["ms_ssim"] == {
        "mean": 0.28,
        "spread": 0.002,
        "spread_is": "standard error over pairs",
        "seeds": [0.28],
    }


def test_floors_that_differ_between_runs_are_averaged(records: Records, tmp_path: Path) -> None:
    records["a"][0]["results"][1]["floor"] = {"16": 8.0, "32": 3.0, "average": 5.5}
    write_report(tmp_path, records, FACTS)  # 6 runs
    assert json.loads((tmp_path / "table.json").read_text())["floor"]["swd 16"] == (5 * 2.0 + 8.0) / 6


def test_a_collapsed_run_does_not_stop_the_report(records: Records, tmp_path: Path) -> None:
    records["e"].append(record("e", 2, math.nan, 1.0, 0.9))
    records["b"] = [record("b", 0, math.inf, 2.0, math.nan)]
    del records["a"][0]["results"][0]  # its MS-SSIM
    records["a"][0]["results"][0]["values"]["32"] = None
    write_report(tmp_path, records, FACTS)
    table = {row[0]: row for row in cells_of(tmp_path)}
    assert table["e"][2] == "nan"
    assert table["b"][2] == "inf ± 0.25"
    assert table["e*"][2] == "**21 ± 1.414**"
    assert table["a"][5] == ""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    values = json.loads((tmp_path / "table.json").read_text(), parse_constant=refuse)["rows"]["e"]["values"]
    assert values["swd 32"]["seeds"] == [12, 15, None]
    assert values["swd 32"]["mean"] is None
    assert values["swd 16"]["mean"] == pytest.approx(17 / 3)


def test_equal_records_give_equal_files(records: Records, tmp_path: Path, plotted: list[Any]) -> None:
    for name, given in (("one", records), ("two", dict(reversed(records.items())))):
        (tmp_path / name).mkdir()
        grid_of(tmp_path / name / "a1.png", COLOURS["a"])
        written = write_report(tmp_path / name, given, FACTS)
        assert [path.name for path in written] == ["table.md", "table.json", "grid.png", "table.png"]
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted(
            ["a1.png", *(path.name for path in written)]
        )
    for path in written:
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


def blocks_of(picture: Image.Image, colours: dict[str, tuple[int, int, int]]) -> dict[str, tuple[int, int, int, int]]:
    """Where each colour is: x, y, width, height; every pixel inside must have it."""
    pixels = np.asarray(picture)
    found = {}
    for name, colour in colours.items():
        down, across = np.nonzero((pixels == colour).all(-1))
        assert len(across), f"{name} is not there"
        x, y, width, height = across.min(), down.min(), np.ptp(across) + 1, np.ptp(down) + 1
        assert len(across) == width * height
        found[name] = (int(x), int(y), int(width), int(height))
    return found


@pytest.mark.parametrize(("side", "width", "height"), [(8, 256, 384), (32, 256, 384), (128, 256, 384), (512, 512, 512)])
def test_the_picture_has_a_block_per_row_in_order(side: int, width: int, height: int, tmp_path: Path) -> None:
    records = {name: [record(name, 0, 1, 1, 0.1)] for name in reversed(COLOURS)}
    for name, colour in COLOURS.items():
        grid_of(tmp_path / records[name][0]["picture"], colour, side if side < 512 else side // 2)
    grid_of(tmp_path / "reals.png", REALS, side if side < 512 else side // 2)
    write_report(tmp_path, records, FACTS | {"resolution": side, "reals_picture": "reals.png"})
    with Image.open(tmp_path / "grid.png") as picture:
        found = blocks_of(picture, COLOURS | {"reals": REALS})
        assert picture.width <= 1600
        assert np.asarray(picture)[:, :10].min() == 255
        above = np.asarray(picture)[: found["a"][1]]
        assert above.min() < 100  # captions
    assert {place[2:] for place in found.values()} == {(width, height)}
    assert sorted(found, key=lambda name: (found[name][1], found[name][0])) == [*COLOURS, "reals"]
    per_line = [sum(place[1] == y for place in found.values()) for y in sorted({y for _, y, _, _ in found.values()})]
    assert per_line == ([2] * 3 if side == 512 else [3, 3])


def test_the_upper_left_images_are_shown_enlarged(records: Records, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 200, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(images).save(tmp_path / "a1.png")
    write_report(tmp_path, {"a": records["a"]}, FACTS)
    with Image.open(tmp_path / "grid.png") as picture:
        shown = np.asarray(picture)[-20 - 384 : -20, -20 - 256 : -20]
    assert np.array_equal(shown, images[:192, :128].repeat(2, 0).repeat(2, 1))


def test_a_missing_picture_leaves_a_gray_block(records: Records, tmp_path: Path) -> None:
    (tmp_path / "e1.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    Image.new("L", (256, 256), 100).save(tmp_path / "a1.png")
    write_report(tmp_path, {name: records[name] for name in ("a", "e*", "e")}, FACTS)
    with Image.open(tmp_path / "grid.png") as picture:
        lower = np.asarray(picture)[-20 - 384 : -20]
    for i, gray in enumerate((100, 221, 221)):
        left = 20 + i * (256 + 20)
        assert (lower[:, left : left + 256] == gray).all()
        assert (lower[:, left + 256 : left + 276] == 255).all()


def test_the_plot_has_a_point_per_row(records: Records, tmp_path: Path, plotted: list[Any]) -> None:
    assert tmp_path / "table.png" in write_report(tmp_path, records, FACTS)
    left, right = plotted[0].axes
    for axis, labels in ((left, ["32x32", "16x16", "average"]), (right, ["generated"])):
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["a", "e*", "e", "zz"]
        assert [bars.get_label() for bars in axis.containers] == labels
    means = left.containers[-1][0].get_ydata()
    assert means == pytest.approx([(60.123456 + 52) / 2, 13.75, 10.75, 31.5])
    lower, upper = np.array(left.containers[-1][2][0].get_segments())[:, :, 1].T
    assert (upper - lower) / 2 == pytest.approx([0.25, np.std([14, 13.5], ddof=1), np.std([10.5, 11], ddof=1), 0.25])
    dots = next(line for line in right.lines if line.get_marker() == ".")
    assert sorted(zip(dots.get_xdata(), dots.get_ydata(), strict=True)) == [(1, 0.2), (1, 0.3), (2, 0.24), (2, 0.26)]
    reals = [line.get_ydata()[0] for axis in (left, right) for line in axis.lines if line.get_label() == "reals"]
    assert reals == [2.5, 0.25]


def test_without_matplotlib_the_rest_is_written(records: Records, tmp_path: Path) -> None:
    written = write_report(tmp_path / "new", records, FACTS)
    assert [path.name for path in written] == ["table.md", "table.json", "grid.png"]
    assert all(path.exists() for path in written)


def test_a_study_without_rows_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished row of the study; run at least one"):
        write_report(tmp_path, {"a": []}, FACTS)
    assert not list(tmp_path.iterdir())
