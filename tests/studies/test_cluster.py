"""Runs as jobs, through submitit: on its local executor, which is a cluster of one machine."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from submitit import LocalExecutor, LocalJob

import progan.studies.cluster
from progan.data.store.pyramid import ImagePyramid
from progan.studies.cluster import JOBS, executor
from progan.studies.experiment import Experiment, trained_nimg
from progan.studies.folder import study_precision
from progan.studies.place import Place, Slurm
from progan.studies.runner import run_experiments
from progan.support.errors import ConfigError, RunError, Stopped
from progan.support.files import locked
from progan.support.run_files import RunFolder
from progan.training import fit_to_data
from tests.conftest import write_data

ON_CPU = Place(on="slurm", slurm=Slurm(gpus=0))


class Job(LocalJob[None]):
    """A local job as another process finds it: by its number, which is that of the process that watches over it."""

    def get_info(self, mode: str = "force") -> dict[str, str]:
        try:
            stat = Path(f"/proc/{self.job_id}/stat").read_text()
        except OSError:
            return {"jobState": "FINISHED"}
        return {"jobState": "FINISHED" if stat.rpartition(")")[2].split()[0] == "Z" else "RUNNING"}


class Executor(LocalExecutor):
    """Jobs of this machine, and how many were submitted."""

    job_class = Job
    submitted: list[str]

    def submit(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        job = super().submit(function, *args, **kwargs)
        self.submitted.append(job.job_id)
        return job


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The numbers of the jobs; the local executor in place of Slurm's, which is said to be there."""
    numbers: list[str] = []

    def local(folder: Path, slurm: Slurm) -> Executor:
        made = Executor(folder)
        made.submitted = numbers
        made.update_parameters(stderr_to_stdout=True)
        return made

    monkeypatch.setattr(progan.studies.cluster, "executor", local)
    monkeypatch.setattr(progan.studies.cluster, "SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(progan.studies.cluster, "SECONDS_UNTIL_BELIEVED", 0.0)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # jobs find this file
    slurm_is_there(monkeypatch, tmp_path)
    yield numbers
    for number in numbers:
        if Job(tmp_path, number).state == "RUNNING":
            os.kill(int(number), signal.SIGTERM)


def slurm_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Programs of Slurm's names, that do nothing."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sbatch", "srun"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@dataclass(frozen=True)
class Weights:
    """Measures the bytes of the weights; waits until it may, and fails when it is told to."""

    fails: bool = False

    def __call__(self, folder: RunFolder) -> dict[str, Any]:
        if self.fails:
            raise RunError("no measure today")
        return {"weights": folder.generator.read_bytes().hex()}


@pytest.fixture
def two(data: ImagePyramid, make_config: Any, tmp_path: Path) -> list[Experiment]:
    config = fit_to_data(make_config(schedule={"total_nimg": 96}), data)
    return [
        Experiment(f"row {seed}", replace(config, seed=seed), data.path, tmp_path / "rows" / f"row{seed}", Weights())
        for seed in (0, 1)
    ]


def elsewhere(experiments: list[Experiment], tmp_path: Path) -> list[Experiment]:
    """The same in other folders."""
    return [replace(one, folder=tmp_path / "here" / one.folder.name) for one in experiments]


def without_seconds(records: list[Any]) -> list[dict[str, Any]]:
    return [{**record, "seconds": None} for record in records]


def wait_for(reached: Any) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_jobs_make_the_records_that_processes_make_also_when_one_is_preempted(
    submitted: list[str], two: list[Experiment], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_experiments(two, replace(ON_CPU, wait=False)).missing == ["row 0", "row 1"]
    assert f"row 0: job {submitted[0]}\n" in capsys.readouterr().err
    folder = RunFolder(two[0].folder)
    wait_for(lambda: trained_nimg(folder))
    interrupt(submitted[0])
    # The same command: nothing is submitted twice, and what is at work is waited for.
    outcome = run_experiments(two, ON_CPU)
    assert f"row 0: job {submitted[0]} of before\n" in capsys.readouterr().err
    assert (len(submitted), outcome.missing, outcome.failure) == (2, [], None)
    stopped, went_on = (re.search(rf"{word} ([\d.]+) ", said(folder)) for word in ("stopped at", "continuing at"))
    assert stopped is not None
    assert went_on is not None
    assert stopped[1] == went_on[1]
    assert "Requeued job" in (folder.path.parent / JOBS / f"{submitted[0]}_0_log.out").read_text()
    here = run_experiments(elsewhere(two, tmp_path), Place(jobs=1), quiet=True)
    assert without_seconds(outcome.records) == without_seconds(here.records)
    assert run_experiments(two, ON_CPU, quiet=True) == outcome  # of what is there
    assert len(submitted) == 2


def said(folder: RunFolder) -> str:
    return (folder.path / "log.txt").read_text()


def interrupt(job: str) -> None:
    """As a cluster does it: SIGTERM and the signal of preemption, to the job itself."""
    (task,) = children(job)
    os.kill(task, signal.SIGTERM)
    os.kill(task, signal.SIGUSR2)


def children(job: str) -> list[int]:
    """The process that works, below the one that watches over it."""
    path = Path(f"/proc/{job}/task/{job}/children")
    wait_for(path.read_text)
    return [int(word) for word in path.read_text().split()]


def test_a_job_that_fails_and_one_that_is_gone_are_named_and_submitted_again(
    submitted: list[str], two: list[Experiment]
) -> None:
    bad, gone = replace(two[0], measure=Weights(fails=True)), two[1]
    run_experiments([bad, gone], replace(ON_CPU, wait=False), quiet=True)
    (task,) = children(submitted[1])
    os.kill(task, signal.SIGKILL)
    outcome = run_experiments([bad, gone], ON_CPU, quiet=True)
    assert outcome.missing == ["row 0", "row 1"]
    one, other = sorted(str(outcome.failure).splitlines())
    logs = [two[0].folder.parent.absolute() / JOBS / f"{job}_0_log.out" for job in submitted]
    assert one == f"row 0: no measure today (job {submitted[0]}; its log is {logs[0]})"
    assert other == f"row 1: job {submitted[1]} ended without a result (FINISHED); its log is {logs[1]}"
    assert "no measure today" in logs[0].read_text()
    assert run_experiments(two[:1], ON_CPU, quiet=True).missing == []
    assert len(submitted) == 3
