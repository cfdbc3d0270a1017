"""Runs as jobs, through submitit: on its local executor, which is a cluster of one machine."""

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
from submitit.core.utils import JobPaths

import progan.studies.cluster
from progan.data.store.pyramid import ImagePyramid
from progan.studies.cluster import JOBS, RunJob, executor
from progan.studies.experiment import Experiment, trained_nimg
from progan.studies.folder import study_precision
from progan.studies.place import Place, Slurm
from progan.studies.runner import run_experiments
from progan.support.config_io import to_json
from progan.support.errors import ConfigError, RunError, Stopped
from progan.support.files import locked, write_json
from progan.support.run_files import RunFolder
from progan.training import fit_to_data

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
    config = fit_to_data(make_config(schedule={"total_nimg": 64}), data)
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


def test_jobs_make_the_same_records_also_when_one_is_preempted(
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
    here = [one.run() for one in elsewhere(two, tmp_path)]  # as a process of this machine does
    assert without_seconds(outcome.records) == without_seconds(here)
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
    wait_for(lambda: "RunError: no measure today" in logs[0].read_text())
    assert run_experiments(two[:1], ON_CPU, quiet=True).missing == []
    assert len(submitted) == 3


@dataclass(frozen=True)
class Signalled:
    """Measures nothing, for signals come meanwhile."""

    signals: tuple[int, ...]

    def __call__(self, folder: RunFolder) -> dict[str, Any]:
        for number in self.signals:
            signal.raise_signal(number)
        return {"measured": True}


@pytest.fixture
def queued_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[int]]:
    """This process as job 7; the signals for which submitit queued it again."""
    told: list[int] = []
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    slurm_is_there(monkeypatch, tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    signal.signal(signal.SIGUSR2, lambda number, _: told.append(number))
    yield told
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("signals", "state", "again"),
    [
        ((signal.SIGUSR2,), "", True),
        ((signal.SIGUSR2, signal.SIGTERM), "", True),
        ((signal.SIGTERM,), "RUNNING", True),  # preempted, where that is all a cluster says
        ((signal.SIGTERM,), "COMPLETING", False),  # by scancel
        ((signal.SIGTERM,), "", False),
    ],
)
def test_a_job_is_queued_again_when_it_is_to_give_way(
    queued_again: list[int], two: list[Experiment], tmp_path: Path, signals: tuple[int, ...], state: str, again: bool
) -> None:
    squeue = tmp_path / "programs" / "squeue"
    squeue.write_text(f"#!/bin/sh\necho {state}\n")
    squeue.chmod(0o755)
    run = replace(two[0], measure=Signalled(signals))
    run = replace(run, config=replace(run.config, schedule=replace(run.config.schedule, total_nimg=4)))
    with pytest.raises(SystemExit) as ended:
        RunJob(run, threads=1, gpu=False)()
    assert ended.value.code == 128 + signal.SIGTERM
    assert queued_again == [signal.SIGUSR2] * again
    assert run.record() is None
    assert trained_nimg(RunFolder(run.folder)) == 4


def test_a_job_without_its_gpu_trains_nothing(queued_again: list[int], two: list[Experiment], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the job has no GPU"):
        RunJob(two[0], threads=1, gpu=True)()
    assert (tmp_path / "7_failed.txt").read_text().startswith("the job has no GPU; ask for one with --slurm.options")
    assert not two[0].folder.exists()


@dataclass
class Scripted:
    """A job that is in one state after the other, as an account of the cluster has them, the last for ever."""

    job_id: str
    states: list[str]
    paths: JobPaths

    @property
    def state(self) -> str:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def done(self) -> bool:
        return self.states[0].split()[0] in ("FAILED", "CANCELLED", "COMPLETED")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, submitted: list[str]) -> Iterator[dict[str, list[str]]]:
    """The states of jobs by number, 1 being the first; nothing works."""
    states: dict[str, list[str]] = {}

    class Executor:
        def __init__(self, folder: Path, slurm: Slurm) -> None:
            self.folder, self.slurm = folder, slurm

        def update_parameters(self, *, job_name: str) -> None:
            assert job_name.startswith("progan row")

        def job_class(self, folder: Path, job: str) -> Scripted:
            return Scripted(job, states[job], JobPaths(folder, job))

        def submit(self, function: RunJob) -> Scripted:
            number = str(len(submitted) + 1)
            if number not in states:
                raise RuntimeError("sbatch: error: invalid partition specified: gpus\nsbatch: error: failed")
            submitted.append(number)
            return self.job_class(self.folder, number)

    monkeypatch.setattr(progan.studies.cluster, "executor", Executor)
    yield states
    submitted.clear()  # they are no processes


def test_a_run_whose_job_is_lost_is_submitted_again_and_one_that_is_cancelled_is_not(
    script: dict[str, list[str]], submitted: list[str], two: list[Experiment]
) -> None:
    script |= {"1": ["PENDING", "PREEMPTED", "PREEMPTED"], "2": ["RUNNING", "NODE_FAIL"], "3": ["CANCELLED by 0"]}
    script |= {"4": ["FAILED"]}
    outcome = run_experiments(two, ON_CPU, quiet=True)
    assert submitted == ["1", "2", "3", "4"]
    for line, state in zip(sorted(str(outcome.failure).splitlines()), ("CANCELLED", "FAILED"), strict=True):
        assert f"ended without a result ({state}); its log is " in line


def test_a_job_for_another_measurement_of_the_run_is_waited_for(
    script: dict[str, list[str]], submitted: list[str], two: list[Experiment]
) -> None:
    other = replace(two[0], result="curve.json")
    script |= {"1": ["RUNNING"], "2": ["COMPLETED"]}
    run_experiments([other], replace(ON_CPU, wait=False), quiet=True)
    script["1"] = ["RUNNING", "RUNNING", "RUNNING", "RUNNING", "COMPLETED"]
    outcome = run_experiments(two[:1], ON_CPU, quiet=True)
    assert submitted == ["1", "2"]
    assert "job 2 ended without a result (COMPLETED)" in str(outcome.failure)  # its own is not submitted for ever


def test_a_moment_between_two_states_is_no_end(
    script: dict[str, list[str]], submitted: list[str], two: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progan.studies.cluster, "SECONDS_UNTIL_BELIEVED", 3600.0)
    short = replace(two[0].config, schedule=replace(two[0].config.schedule, total_nimg=8))
    run = replace(two[0], config=short)
    script["1"] = ["RUNNING", "PREEMPTED", "PENDING", "RUNNING"]
    monkeypatch.setattr(progan.studies.cluster.time, "sleep", lambda _: run.run() if len(script["1"]) == 1 else None)
    assert run_experiments([run], ON_CPU, quiet=True).missing == []
    assert submitted == ["1"]


def test_a_cluster_without_accounts_is_asked_what_its_queue_says(
    script: dict[str, list[str]], two: list[Experiment], tmp_path: Path
) -> None:
    script |= {"1": ["UNKNOWN"], "2": ["UNKNOWN"]}
    run_experiments(two[:1], replace(ON_CPU, wait=False), quiet=True)
    squeue = tmp_path / "programs" / "squeue"
    for answer, state in (
        ("echo RUNNING", None),
        ("echo CANCELLED", "CANCELLED"),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", "FORGOTTEN"),
        ("echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1", None),
    ):
        squeue.write_text(f"#!/bin/sh\n{answer}\n")
        squeue.chmod(0o755)
        job = Scripted("1", ["UNKNOWN"], JobPaths(tmp_path, "1"))
        assert progan.studies.cluster.ended(job) == state, answer


def test_waiting_is_stopped_and_the_jobs_are_not(
    script: dict[str, list[str]],
    submitted: list[str],
    two: list[Experiment],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script |= {"1": ["RUNNING"], "2": ["PENDING"]}
    monkeypatch.setattr(progan.studies.cluster.time, "sleep", lambda _: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(sys, "argv", ["progan", "ablate", "--out", "a study"])
    with pytest.raises(Stopped) as stopped:
        run_experiments(two, ON_CPU, quiet=True)
    assert stopped.value.signum == signal.SIGINT
    assert capsys.readouterr().err == (
        "progan: stopped waiting, while the jobs go on; `scancel 1 2` ends them, and this waits for them again:"
        " progan ablate --out 'a study'\n"
    )
    run_experiments(two, replace(ON_CPU, wait=False), quiet=True)
    assert submitted == ["1", "2"]


def test_two_commands_do_not_submit_at_once(
    script: dict[str, list[str]], submitted: list[str], two: list[Experiment]
) -> None:
    with (
        locked(two[0].folder.parent / JOBS, "command"),
        pytest.raises(RunError, match=r"jobs: another command with --on slurm is at work here; wait for it or stop it"),
    ):
        run_experiments(two, ON_CPU, quiet=True)
    assert submitted == []


def test_a_job_that_the_cluster_does_not_take_is_said(script: dict[str, list[str]], two: list[Experiment]) -> None:
    sentence = "row 0: the cluster takes no such job (sbatch: error: invalid partition specified: gpus); change --slurm"
    with pytest.raises(RunError) as raised:
        run_experiments(two, ON_CPU, quiet=True)
    assert str(raised.value).startswith(sentence)


def test_slurm_is_asked_for_what_the_options_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slurm_is_there(monkeypatch, tmp_path)
    sbatch = tmp_path / "programs" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho Submitted batch job 7\n")
    options = ("account=vision", "exclusive", "gpus-per-node=a100:1", "mail-user=a@b.c")
    made = executor(tmp_path / "jobs", Slurm("low", hours=1.5, cpus=4, memory_gb=0.5, options=options))
    made.update_parameters(job_name="progan g-seed0")
    assert made.submit(print).job_id == "7"
    lines = (tmp_path / "jobs" / "7_submission.sh").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert asked >= {
        "partition=low",
        "time=90",
        "cpus-per-task=4",
        "mem=512MB",
        "account=vision",
        "exclusive",
        "gpus-per-node=a100:1",
        "mail-user=a@b.c",
        "requeue",
        "signal=USR2@180",
        "open-mode=append",
        "job-name='progan g-seed0'",
    }
    assert [line for line in asked if line.startswith("gpus")] == ["gpus-per-node=a100:1"]
    plain = executor(tmp_path / "jobs", Slurm())
    assert plain.parameters["additional_parameters"] == {"requeue": True, "gpus_per_node": 1}
    assert plain.parameters["time"] == 24 * 60


@pytest.mark.parametrize(
    ("place", "device", "sentence"),
    [
        (Place(jobs=0), "auto", "--jobs: 0 is not allowed"),
        (Place(slurm=Slurm(hours=2)), "auto", "--slurm: its options are for --on slurm; add that"),
        (replace(ON_CPU, jobs=2), "auto", "--jobs: is for this machine, and Slurm itself decides"),
        (ON_CPU, "cuda:1", "--device: is for this machine; leave it out, and use --slurm.gpus 0"),
        (Place("slurm", slurm=Slurm(gpus=2)), "auto", "--slurm.gpus: 2 is not allowed; use 1"),
        (Place("slurm", slurm=Slurm(hours=0)), "auto", "--slurm.hours: 0 is not allowed; use a sixth"),
        (Place("slurm", slurm=Slurm(cpus=0)), "auto", "--slurm.cpus: 0 is not allowed; use a whole"),
        (Place("slurm", slurm=Slurm(memory_gb=float("nan"))), "auto", "--slurm.memory-gb: nan is not allowed"),
        (Place("slurm", slurm=Slurm(options=("a=1\n#SBATCH",))), "auto", "--slurm.options: 'a=1"),
        (Place("slurm", slurm=Slurm(options=("=1",))), "auto", "--slurm.options: '=1' is no option of sbatch"),
    ],
)
def test_what_a_place_refuses(
    place: Place, device: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slurm_is_there(monkeypatch, tmp_path)
    with pytest.raises(ConfigError) as raised:
        place.device(device)
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)


def test_a_machine_without_slurm_or_submitit_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="--on: slurm's program sbatch is not on this machine; give the command on"):
        ON_CPU.check()
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"--on: submitit is not installed; pip install 'progan\[cluster\]'"):
        ON_CPU.check()


def test_a_study_for_gpus_elsewhere_is_in_bf16_unless_it_began_otherwise(tmp_path: Path, two: list[Experiment]) -> None:
    assert study_precision(tmp_path / "new", "auto", place=Place("slurm")) == "bf16"
    two[0].folder.mkdir(parents=True)
    write_json(RunFolder(two[0].folder).config, {"config": to_json(two[0].config)})  # in fp32
    assert study_precision(tmp_path / "rows", "auto", place=Place("slurm")) == "fp32"
