"""What a run's folder shows, while it trains and after."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from progan.presets import PRESETS
from progan.support.files import is_locked, locked
from progan.view.runs import MOST_POINTS, config_differences, details, find, nearest_preset, run_id, summary, thinned
from tests.view.conftest import lines, small_config


def test_everything_is_found_and_no_link_is_followed_out(folder: Path, tmp_path: Path) -> None:
    found = find(folder)
    assert found.runs == [folder / "runs" / "one", folder / "runs" / "two"]
    assert (found.data, found.studies) == ([folder / "data"], [folder / "study"])
    assert find(folder / "runs" / "one").runs == [folder / "runs" / "one"]
    assert len({run_id(path) for path in found.runs + found.data}) == 3
    (tmp_path / "out").symlink_to(folder / "runs")
    (tmp_path / "round").symlink_to(tmp_path)
    assert find(tmp_path).runs == []


def test_a_finished_run(folder: Path) -> None:
    run = folder / "runs" / "one"
    told = details(run)
    assert (told["state"], told["nimg"], told["total"], told["resolution"], told["full"]) == ("done", 96, 96, 16, 16)
    assert told["pictures"] == [0, 16, 32, 48, 64, 80, 96]
    assert told["snapshots"] == [16, 32, 48, 64, 80, 96]
    assert [(phase["start"], phase["resolution"], phase["fading"]) for phase in told["phases"]] == [
        (0, 4, False), (16, 8, True), (32, 8, False), (48, 16, True), (64, 16, False),
    ]  # fmt: skip
    rows = lines(run / "stats.jsonl")
    assert told["losses"]["nimg"] == [row["nimg"] for row in rows]
    assert told["losses"]["terms"]["wasserstein"] == [row["wasserstein"] for row in rows]
    assert told["speed"]["seconds"] == [row["seconds"] for row in lines(run / "timing.jsonl")]
    (curve,) = told["metrics"]
    measured = lines(run / "metrics.jsonl")
    assert (curve["title"], curve["images"], curve["nimg"]) == ("MS-SSIM", 16, [48, 96])
    assert curve["levels"][""]["values"] == [row["values"][""] for row in measured]
    assert curve["levels"][""]["floor"] == measured[-1]["reals"][""]
    assert told["data"] == json.loads((folder / "data" / "dataset.json").read_text())["hash"]
    assert summary(run).items() <= told.items()


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """A run that may be spoilt."""
    shutil.copytree(folder / "runs" / "one", tmp_path / "run")
    return tmp_path / "run"


def test_what_a_run_is_at(run: Path) -> None:
    with locked(run, "progan train"):
        assert is_locked(run)
        assert summary(run)["state"] == "training"
    assert is_locked(run) is False
    (run / "generator.safetensors").unlink()
    assert summary(run)["state"] == "stopped"
    log = run / "log.txt"
    log.write_text(f"{log.read_text()}run: training diverged before 0.1 kimg (wasserstein is not a number)\n")
    assert summary(run)["state"] == "diverged"
    assert "wasserstein is not a number" in summary(run)["problem"]
    (run / "config.json").write_text("{")
    assert summary(run)["state"] == "unreadable"
    assert "config.json" in summary(run)["problem"]


def test_damaged_lines_are_left_out(run: Path) -> None:
    whole = details(run)["losses"]["nimg"]
    stats = run / "stats.jsonl"
    stats.write_text('{"nimg": "x"}\nnonsense\n[]\n' + stats.read_text() + '{"nimg": 9, "was')
    (run / "timing.jsonl").write_text((run / "timing.jsonl").read_text() + '{"nimg": 1e')
    (run / "fakes-x.png").write_text("no picture of a moment")
    told = details(run)
    assert (told["losses"]["nimg"], told["nimg"], told["pictures"][-1]) == (whole, 96, 96)
    (run / "stats.jsonl").write_text('{"nimg": 8, "wasserstein": NaN, "drift": "x"}\n')
    assert details(run)["losses"]["terms"] == {"wasserstein": [None], "drift": [None]}


def test_the_nearest_preset_and_what_differs() -> None:
    for name, preset in PRESETS.items():
        assert nearest_preset(preset.config) == (name, [])
    changed = replace(PRESETS["cifar10"].config, beta2=0.5, seed=3)
    assert nearest_preset(changed) == ("cifar10", [["beta2", 0.99, 0.5], ["seed", 0, 3]])
    assert nearest_preset(small_config(precision="fp32"))[0] == "demo"
    assert config_differences([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1}]) == [["b", 2, 3, None]]


def test_long_curves_keep_their_end() -> None:
    assert thinned([]) == []
    assert thinned([1, 2]) == [1, 2]
    some = thinned(list(range(3 * MOST_POINTS + 1)))
    assert len(some) <= MOST_POINTS
    assert some[-1] == 3 * MOST_POINTS
