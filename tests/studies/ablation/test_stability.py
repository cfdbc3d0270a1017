"""The fates of runs: told from what was measured, each run cut as soon as its own is clear (section 2, appendix B)."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from progan.config import ScheduleConfig
from progan.schedule import Schedule
from progan.studies.ablation import stability as module
from progan.studies.ablation.rows import ROWS
from progan.studies.ablation.stability import Bounds, Fate, FateExperiment, fate_of, parts, stability
from progan.studies.ablation.study import Study
from progan.studies.place import Place
from progan.support.errors import DivergedError, RunError

BOUNDS = Bounds(swd=60.0, ms_ssim=0.5, hopeless=4.0)


def points(*values: tuple[float, float]) -> list[dict[str, float]]:
    return [{"swd": swd, "ms_ssim": ms_ssim} for swd, ms_ssim in values]


def test_a_fate_is_told_as_soon_as_it_is_clear() -> None:
    for measured, early, at_the_end in (
        (points((59, 0.3)), "", "ends well"),
        (points((61, 0.3)), "", "far from the data"),
        (points((241, 0.3)), "far from the data", "far from the data"),
        (points((20, 0.6)), "", "collapsed"),
        (points((20, 0.6), (20, 0.6)), "collapsed", "collapsed"),
        (points((20, 0.6), (20, 0.4)), "", "ends well"),
        (points((20, 0.4), (20, 0.6)), "", "collapsed"),
        (points((float("nan"), 0.3)), "far from the data", "far from the data"),
        (points((20, float("nan"))), "", "collapsed"),
    ):
        assert fate_of(measured, BOUNDS, ended=False) == early, measured
        assert fate_of(measured, BOUNDS, ended=True) == at_the_end, measured


def test_all_runs_are_measured_at_the_same_moments_once_fully_grown() -> None:
    config = ScheduleConfig(stable_nimg=2000, fade_nimg=2000, total_nimg=24_000)
    for growing in (True, False):
        assert parts(Schedule(replace(config, growing=growing), 32)) == [16_000, 20_000, 24_000]


@pytest.fixture
def run(make_config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """run(outcomes) -> the record of a run whose parts come to these, and where each part ended."""
    config = make_config(schedule={"stable_nimg": 40, "fade_nimg": 40, "total_nimg": 400, "batch": {4: 8}})

    def of(*outcomes: Any) -> tuple[dict[str, Any], list[int]]:
        ends, left = [], list(outcomes)

        def train(config: Any, data: Any, folder: Path) -> Any:
            ends.append(config.schedule.total_nimg)
            if isinstance(left[0], Exception):
                raise left[0]
            return type("State", (), {"nimg": ends[-1], "seconds": 0.5 * len(ends)})

        monkeypatch.setattr(module, "train", train)
        monkeypatch.setattr(module, "ImagePyramid", type("Data", (), {"open": staticmethod(lambda path: None)}))
        monkeypatch.setattr(Fate, "__call__", lambda self, folder: points(left.pop(0))[0])
        measure = Fate(tmp_path, 8, False, "cpu", bounds=BOUNDS)
        experiment = FateExperiment("x", config, tmp_path, tmp_path, measure, "fate.json")
        record = experiment.run()
        assert experiment.record() == record
        return record, ends

    return of


def test_a_run_goes_on_while_it_may_end_well(run: Callable[..., Any]) -> None:
    record, ends = run((200, 0.3), (61, 0.6), (30, 0.3))
    assert (record["fate"], record["nimg"], record["seconds"], len(record["points"])) == ("ends well", 400, 1.5, 3)
    assert ends == [240, 320, 400]  # fully grown after 160
    record, ends = run((20, 0.6), (20, 0.7))
    assert (record["fate"], ends) == ("collapsed", [240, 320])
    record, ends = run((20, 0.3), DivergedError("x"))
    assert (record["fate"], record["nimg"], ends) == ("diverged", 240, [240, 320])
    record, ends = run(DivergedError("x"))
    assert (record["fate"], record["nimg"], record["points"]) == ("diverged", 0, [])
    with pytest.raises(RunError, match="disk"):  # what is no fate
        run(RunError("the disk is full"))


@pytest.mark.usefixtures("tiny")
def test_the_study_counts_fates_by_variant_rate_and_seed(
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SHORT", {"schedule.total_nimg": 200, "checkpoint_nimg": 1000, "snapshot_nimg": 1000})
    monkeypatch.setattr(module, "VARIANTS", {"WGAN-GP, grown": "g", "LSGAN, grown": "g-lsgan"})
    study = Study(faces, tmp_path / "study", place=Place(jobs=1))
    text, written = stability(study, ROWS, [0.5, 1000.0])
    assert {path.name for path in written} >= {"stability.json", "stability.md"}
    found = json.loads(written[0].read_text())
    for variant in ("WGAN-GP, grown", "LSGAN, grown"):
        for rate in ("0.5", "1000"):
            (seed,) = found["runs"][variant][rate]
            assert seed["fate"] in ("far from the data", "collapsed", "diverged")  # of 200 images nobody learns
    assert found["rate"] == pytest.approx(0.006)
    assert "End well: WGAN-GP, grown: 0 of 2; LSGAN, grown: 0 of 2." in text
    config = json.loads((study.out / "rows/g-rate-0.5-short-seed0/config.json").read_text())["config"]
    assert config["schedule"]["g_lr"]["4"] == pytest.approx(0.003)
