"""Runs side by side, each measured at its end, none done twice."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from progan.data.store.pyramid import ImagePyramid
from progan.studies.folder import prepare_study, study_precision
from progan.studies.runner import Experiment, run_experiments, trained_nimg
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


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


def asked(experiment: Experiment) -> int:
    return len((experiment.folder / "asked").read_text())


def test_runs_are_trained_and_measured_once(experiment: Experiment, tmp_path: Path) -> None:
    longer = replace(experiment.config, schedule=replace(experiment.config.schedule, total_nimg=40), seed=1)
    two = replace(experiment, name="two", config=longer, folder=tmp_path / "two")
    first = run_experiments([experiment, two], jobs=2, quiet=True)
    assert [record["name"] for record in first] == ["one", "two"]
    assert [record["nimg"] for record in first] == [24, 40]
    assert all(record["seconds"] > 0 and record["bytes"] > 1000 for record in first)
    assert first[0]["parameters"]["g"] > 1000 < first[0]["parameters"]["d"]
    assert run_experiments([experiment, two], quiet=True) == first
    assert (asked(experiment), asked(two)) == (1, 1)
    assert trained_nimg(RunFolder(two.folder)) == 40

    # Another measure, a longer run and a damaged record are measured anew; the same run goes on.
    other = replace(experiment, measure=Look("size"))
    assert "size" in run_experiments([other], quiet=True)[0]
    on = replace(other, config=replace(other.config, schedule=replace(other.config.schedule, total_nimg=32)))
    assert run_experiments([on], quiet=True)[0]["nimg"] == 32
    (two.folder / "result.json").write_text("{")
    assert run_experiments([two], quiet=True)[0]["bytes"] == first[1]["bytes"]
    assert (asked(experiment), asked(two)) == (3, 2)


def test_a_record_stands_where_nothing_but_the_device_or_an_unsaid_number_format_differs(
    experiment: Experiment,
) -> None:
    (record,) = run_experiments([experiment], quiet=True)
    assert replace(experiment, measure=replace(experiment.measure, where="elsewhere")).record() == record
    path = experiment.folder / "result.json"
    saved = json.loads(path.read_text())
    saved["key"]["config"]["precision"] = "auto"  # as it was written before; the run began in fp32
    write_json(path, saved)
    assert experiment.record() == record
    assert replace(experiment, config=replace(experiment.config, precision="bf16")).record() is None


def test_a_study_keeps_the_number_format_of_its_first_run(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast, format in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda fast=fast: {"avx512_bf16": fast})
        assert study_precision(tmp_path / "new", "cpu") == format
    run_experiments([experiment], quiet=True)  # in fp32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert study_precision(experiment.folder.parent, "cpu") == "fp32"


def test_a_run_that_fails_does_not_stop_the_others(experiment: Experiment, tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "something").write_text("else")
    bad = replace(experiment, name="bad", folder=folder)
    with pytest.raises(RunError, match=r"^bad: .*taken: is not empty"):
        run_experiments([bad, experiment], jobs=1, quiet=True)
    assert experiment.record() is not None


@pytest.mark.parametrize("field", ["jobs", "threads"])
def test_no_run_works_without_a_process(experiment: Experiment, field: str) -> None:
    with pytest.raises(ConfigError, match=f"--{field}: 0 is not allowed"):
        run_experiments([experiment], **{field: 0})  # type: ignore[arg-type]


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
