"""Runs side by side, each measured at its end, none done twice."""

import json
import multiprocessing
import sys
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import progan.studies.pool
from progan.data.store.pyramid import ImagePyramid
from progan.studies.experiment import Experiment, trained_nimg
from progan.studies.folder import prepare_study, study_precision
from progan.studies.place import Place
from progan.studies.runner import Outcome, run_experiments
from progan.support.errors import ConfigError, RunError
from progan.support.files import write_json
from progan.support.run_files import RunFolder
from progan.training import fit_to_data


@dataclass(frozen=True)
class Look:
    """Measures the size of the weights file, and writes down that it was asked."""

    what: str = "bytes"
    where: str = field(default="here", compare=False)

    def __call__(self, folder: RunFolder) -> dict[str, Any]:
        with (folder.path / "asked").open("a") as file:
            file.write("x")
        return {self.what: folder.generator.stat().st_size}


@pytest.fixture
def experiment(data: ImagePyramid, make_config: Any, tmp_path: Path) -> Experiment:
    config = fit_to_data(make_config(schedule={"total_nimg": 24}), data)
    return Experiment("one", config, data.path, tmp_path / "one", Look())


def done(experiment: Experiment) -> dict[str, Any]:
    """The record of one experiment, which is run if need be."""
    (record,) = run_experiments([experiment], quiet=True).records
    assert record is not None
    return record


def asked(experiment: Experiment) -> int:
    return len((experiment.folder / "asked").read_text())


def test_runs_are_trained_and_measured_once_in_processes_side_by_side(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # the workers find this file
    longer = replace(experiment.config, schedule=replace(experiment.config.schedule, total_nimg=40), seed=1)
    two = replace(experiment, name="two", config=longer, folder=tmp_path / "two")
    outcome = run_experiments([experiment, two], Place(jobs=2), quiet=True)
    first = [record for record in outcome.records if record is not None]
    assert (outcome.missing, outcome.failure) == ([], None)
    assert [record["name"] for record in first] == ["one", "two"]
    assert [record["nimg"] for record in first] == [24, 40]
    assert all(record["seconds"] > 0 and record["bytes"] > 1000 for record in first)
    assert first[0]["parameters"]["g"] > 1000 < first[0]["parameters"]["d"]
    assert run_experiments([experiment, two], quiet=True) == outcome
    assert (asked(experiment), asked(two)) == (1, 1)
    assert trained_nimg(RunFolder(two.folder)) == 40


@pytest.mark.usefixtures("in_this_process")
def test_another_measure_a_longer_run_and_a_damaged_record_are_measured_anew(experiment: Experiment) -> None:
    first = done(experiment)
    other = replace(experiment, measure=Look("size"))
    assert done(other)["size"] == first["bytes"]
    on = replace(other, config=replace(other.config, schedule=replace(other.config.schedule, total_nimg=32)))
    assert done(on)["nimg"] == 32  # the same run goes on
    assert "continuing at" in (on.folder / "log.txt").read_text()
    (on.folder / "result.json").write_text("{")
    assert done(on)["size"] == first["bytes"]
    assert asked(experiment) == 4


@pytest.mark.usefixtures("in_this_process")
def test_a_record_stands_where_nothing_but_the_device_or_an_unsaid_number_format_differs(
    experiment: Experiment,
) -> None:
    record = done(experiment)
    assert replace(experiment, measure=replace(experiment.measure, where="elsewhere")).record() == record
    path = experiment.folder / "result.json"
    saved = json.loads(path.read_text())
    saved["key"]["config"]["precision"] = "auto"  # as it was written before; the run began in fp32
    saved["key"]["measure"][1]["device"] = "cuda"
    write_json(path, saved)
    del saved["key"]["config"]["deterministic"]  # which older versions did not have
    write_json(path, saved)
    assert experiment.record() == record
    assert replace(experiment, config=replace(experiment.config, precision="bf16")).record() is None
    assert replace(experiment, config=replace(experiment.config, deterministic=True)).record() is None


@pytest.mark.usefixtures("in_this_process")
def test_a_study_keeps_the_number_format_of_its_first_run(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast, format in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda fast=fast: {"avx512_bf16": fast})
        assert study_precision(tmp_path / "new", "cpu") == format
    done(experiment)  # in fp32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert study_precision(experiment.folder.parent, "cpu") == "fp32"


@pytest.mark.usefixtures("in_this_process")
def test_a_run_that_fails_does_not_stop_the_others(experiment: Experiment, tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "something").write_text("else")
    bad = replace(experiment, name="bad", folder=folder)
    outcome = run_experiments([bad, replace(bad, name="worse"), experiment], Place(jobs=1), quiet=True)
    assert outcome.records == [None, None, experiment.record()]
    assert outcome.records[2] is not None
    assert outcome.missing == ["bad", "worse"]
    with pytest.raises(RunError) as raised:
        outcome.check()
    one, other = sorted(str(raised.value).splitlines())  # each that failed is named, as they came to an end
    assert (one.partition(": ")[0], other.partition(": ")[0]) == ("bad", "worse")
    assert "taken: is not empty" in one


def test_what_is_not_waited_for_is_not_begun(experiment: Experiment) -> None:
    assert run_experiments([experiment], Place(wait=False), quiet=True) == Outcome([None], ["one"])
    assert not experiment.folder.exists()


def test_no_run_works_without_a_process(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match="--jobs: 0 is not allowed"):
        run_experiments([experiment], Place(jobs=0))
    with pytest.raises(ConfigError, match="--threads: 0 is not allowed"):
        run_experiments([experiment], threads=0)


class Pool:
    """In place of the processes: notes how many there would be, their threads and the GPUs they may choose from."""

    asked: ClassVar[list[tuple[int, int, int]]] = []

    def __init__(self, *how: int) -> None:
        self.asked.append(how)  # type: ignore[arg-type]

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *what: object) -> None:
        pass

    def submit(self, function: Any, experiment: Experiment) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result({"nimg": 24, "seconds": 1.0})
        return future


@pytest.mark.parametrize(
    ("device", "jobs", "expected"),
    [
        ("auto", None, (3, 1, 3)),  # as many as there are GPUs
        ("cuda", 2, (2, 1, 3)),
        ("cuda", 4, (4, 1, 3)),
        ("cuda:1", None, (1, 1, 0)),  # that one alone, which is not to be chosen
        ("cuda:1", 4, (4, 1, 0)),
        ("cpu", 4, (4, 1, 0)),
    ],
)
def test_there_is_a_process_for_each_gpu(
    experiment: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    jobs: int | None,
    expected: tuple[int, int, int],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(progan.studies.pool, "_pool", Pool)
    config = replace(experiment.config, device=device)
    several = [replace(experiment, name=f"{i}", config=config) for i in range(5)]
    assert run_experiments(several, Place(jobs=jobs), quiet=True).missing == []
    assert Pool.asked.pop() == expected


def test_each_process_has_a_gpu_of_its_own_while_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for what in ("os.setpgrp", "signal.signal", "end_with_parent"):  # of this process they shall stay
        monkeypatch.setattr(f"progan.studies.pool.{what}", lambda *_: None)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    taken = multiprocessing.get_context("spawn").Value("i", 0)
    for _ in range(7):
        progan.studies.pool._start(1, 3, taken)
    assert chosen == [0, 1, 2, 0, 1, 2, 0]
    progan.studies.pool._start(1, 0, taken)
    assert len(chosen) == 7


def test_a_folder_is_of_one_study(tmp_path: Path) -> None:
    out = tmp_path / "study"
    prepare_study(out, {"scale": "small", "data": "abc"})
    prepare_study(out, {"scale": "small", "data": "abc"})
    with pytest.raises(RunError, match=r"holds another study \(scale was small and is now paper\); give --out a new"):
        prepare_study(out, {"scale": "paper", "data": "abc"})
    prepare_study(out, {"study": "ablation", "scale": "small", "data": "abc"})  # made before folders said which
    (out / "study.json").write_text('{"study": "CIFAR-10", "scale": "small", "data": "abc"}')
    with pytest.raises(RunError, match=r"another study \(study was CIFAR-10 and is now ablation\)"):
        prepare_study(out, {"study": "ablation", "scale": "small", "data": "abc"})
    (out / "study.json").write_text("no")
    with pytest.raises(RunError, match=r"study\.json: cannot be read"):
        prepare_study(out, {})
    (out / "study.json").unlink()
    (out / "other").write_text("")
    with pytest.raises(RunError, match="is not empty and holds no study"):
        prepare_study(out, {})
