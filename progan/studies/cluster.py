"""Experiments as jobs of a Slurm cluster, through submitit: a job may be preempted, is queued again and goes on."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypedDict

import torch

from progan.run.signals import stop_signals
from progan.studies.display import Display
from progan.studies.experiment import Experiment, Record
from progan.studies.place import Place, Slurm
from progan.support.errors import RunError, Stopped, UserError, printable
from progan.support.files import locked, write_json, write_text
from progan.support.json_reader import read_json
from progan.support.plain_files import CONFIG_BYTES, read_plain
from progan.support.terminal import say

JOBS = "jobs"  # beside the folders of the runs: which job works on which run, and the jobs' logs
MOST_TIMEOUTS = 10_000  # as often as its hours are over a run is queued again
SAVE_SECONDS = 180  # so long before its hours are over a job is told; a step and a checkpoint take less
SECONDS_BETWEEN_LOOKS = 10.0
# So long a job must seem to have ended before that is believed: a network drive shows files late, and one that Slurm
# itself queues again is neither here nor there for a moment.
SECONDS_UNTIL_BELIEVED = 120.0
FORGOTTEN = "FORGOTTEN"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", FORGOTTEN)
LOST = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")  # through no fault of its own: such a run is submitted again


@dataclass(frozen=True)
class RunJob:
    """What a job does; submitit calls it, in a process of its own, and keeps it for when the job is queued again.

    gpu: whether it must find one. Why a run fails is left in a sentence beside the job's log.
    """

    experiment: Experiment
    threads: int
    gpu: bool

    def __call__(self) -> None:
        from submitit import JobEnvironment

        number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        queue_again: Any = signal.getsignal(number)  # submitit would do so at once, in the middle of a step
        told: list[int] = []
        stopped: list[int] = []

        def give_way(signum: int, frame: FrameType | None) -> None:
            told.append(signum)
            handler = signal.getsignal(signal.SIGTERM)  # while it trains, of the training, which saves
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by a second one the training would end at once
            if callable(handler):
                with suppress(KeyboardInterrupt):  # it was the second one
                    handler(signal.SIGTERM, frame)
            stopped.append(signum)

        def stop(signum: int, frame: FrameType | None) -> None:
            if not stopped:
                stopped.append(signum)
                raise Stopped(signum)

        signal.signal(number, give_way)
        signal.signal(signal.SIGTERM, stop)
        torch.set_num_threads(self.threads)
        try:
            if self.gpu and not torch.cuda.is_available():
                raise RunError("the job has no GPU; ask for one with --slurm.options gres=gpu:1, or --slurm.gpus 0")
            if self.experiment.record() is None:  # another may have been faster than the queue
                self.experiment.run()
        except Stopped as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing is left to save
            # Where preemption is announced by SIGTERM alone, as `scancel` is, only the job's state tells them apart.
            if told or error.signum == number or squeue(JobEnvironment().job_id) == "RUNNING":
                queue_again(number, None)
            raise SystemExit(128 + error.signum) from None
        except Exception as error:
            job = JobEnvironment()
            why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {printable(error)}"
            write_text(failure_file(job.paths.folder, job.job_id), why)
            raise

    def checkpoint(self) -> Any:
        """What goes on when the job is queued again: the same, as the run's own folder says how far it is."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Kept(TypedDict):
    job: str


class Queue:
    """The jobs of the runs in one folder, submitted now or by a command before."""

    def __init__(self, folder: Path, place: Place, threads: int) -> None:
        self.folder, self.threads, self.gpu = folder, threads, place.slurm.gpus > 0
        self.executor = executor(folder, place.slurm)

    def job_of(self, experiment: Experiment) -> Any | None:
        """The job that works on a run or waits to; None without one."""
        try:
            number = read_json(self._file(experiment), _Kept, CONFIG_BYTES)["job"]
        except (OSError, ValueError):
            return None
        job = self.executor.job_class(self.executor.folder, number)
        failed = failure_file(job.paths.folder, number).exists()
        return None if failed or ended(job) is not None else job

    def submit(self, experiment: Experiment) -> Any:
        """A new job for a run. Raises RunError when the cluster does not take it."""
        self.executor.update_parameters(job_name=f"progan {experiment.folder.name}")
        try:
            job = self.executor.submit(RunJob(experiment, self.threads, self.gpu))
        except (RuntimeError, OSError) as error:
            raise RunError(
                f"{experiment.name}: the cluster takes no such job ({printable(error)}); change --slurm's options"
            ) from None
        write_json(self._file(experiment), {"job": job.job_id})
        return job

    def _file(self, experiment: Experiment) -> Path:
        return self.folder / f"{experiment.folder.name}.json"


def executor(folder: Path, slurm: Slurm) -> Any:
    """What submits jobs of these options, their logs and states in `folder`."""
    from submitit import SlurmExecutor

    made = SlurmExecutor(folder, max_num_timeout=MOST_TIMEOUTS)
    options: dict[str, Any] = {"requeue": True, **slurm.other()}
    if slurm.gpus:
        options.setdefault("gpus_per_node", slurm.gpus)
    if slurm.partition is not None:
        options["partition"] = slurm.partition
    made.update_parameters(
        time=round(slurm.hours * 60),
        cpus_per_task=slurm.cpus,
        mem=f"{round(slurm.memory_gb * 1024)}MB",
        signal_delay_s=SAVE_SECONDS,
        stderr_to_stdout=True,
        additional_parameters=options,
    )
    return made


def in_jobs(
    experiments: Mapping[int, Experiment], place: Place, threads: int, display: Display
) -> Generator[tuple[int, Record | UserError], None, None]:
    """Train and measure experiments whose folders lie side by side: (number, record or what went wrong), as they end.

    A run that has a job gets no other. A place that does not wait gets no results. SIGINT and SIGTERM end the waiting,
    not the jobs, and raise Stopped. Raises RunError while another command submits or waits for jobs here.
    """
    if not experiments:
        return
    folder = next(iter(experiments.values())).folder.parent / JOBS
    with locked(folder, "command with --on slurm"), stop_signals() as caught:
        queue = Queue(folder.absolute(), place, threads)
        at_work: dict[int, Any] = {}
        of_before = set()
        for i, experiment in experiments.items():
            if (before := queue.job_of(experiment)) is not None:
                of_before.add(i)
            at_work[i] = queue.submit(experiment) if before is None else before
            display.say(f"{experiment.name}: job {at_work[i].job_id}{' of before' * (before is not None)}")
            _check_stop(caught, at_work)
        seemed: dict[int, float] = {}  # since when a job seems to have ended
        while at_work and place.wait:
            display.look()
            for i, job in list(at_work.items()):
                result = _result(experiments[i], job)
                if result is None and (state := ended(job)) is not None:
                    now = time.monotonic()
                    if now - seemed.setdefault(i, now) < SECONDS_UNTIL_BELIEVED:
                        continue
                    # A job of before may have been for another measurement of this run.
                    if state in LOST or (state == "COMPLETED" and i in of_before):
                        of_before.discard(i)
                        at_work[i] = queue.submit(experiments[i])
                        display.say(
                            f"{experiments[i].name}: job {at_work[i].job_id} goes on after job {job.job_id} ({state})"
                        )
                    else:
                        result = RunError(f"job {job.job_id} ended without a result ({state}); {_advice(job)}")
                seemed.pop(i, None)
                if result is not None:
                    del at_work[i]
                    yield i, result
            _check_stop(caught, at_work)
            begun = time.monotonic()
            while at_work and not caught and time.monotonic() - begun < SECONDS_BETWEEN_LOOKS:
                time.sleep(min(0.25, SECONDS_BETWEEN_LOOKS))


def ended(job: Any) -> str | None:
    """The state in which a job ended, one word; None while it waits or works."""
    if job.done():
        return str(job.state).split()[0]
    state = str(job.state).split()[0]
    if state == "UNKNOWN":  # the cluster keeps no accounts, or not yet of this job
        state = squeue(job.job_id)
        return state if state in ENDED or state in LOST else None
    return state if state in LOST else None


def squeue(job: str) -> str:
    """The state of a job that has not ended long ago, FORGOTTEN after that; "" where Slurm does not answer."""
    try:
        command = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}"]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return FORGOTTEN if "Invalid job id" in asked.stderr else asked.stdout.strip()


def failure_file(folder: Path, job: str) -> Path:
    """Where a job leaves why its run failed."""
    return folder / f"{job}_failed.txt"


def _result(experiment: Experiment, job: Any) -> Record | RunError | None:
    """What a job has left: the record, or why there is none; None where there is nothing yet."""
    if (record := experiment.record()) is not None:
        return record
    try:
        why = read_plain(failure_file(job.paths.folder, job.job_id), CONFIG_BYTES).decode(errors="replace")
    except OSError:
        return None
    return RunError(f"{why} (job {job.job_id}; {_advice(job)})")


def _advice(job: Any) -> str:
    return f"its log is {job.paths.stdout}"


def _check_stop(caught: list[int], at_work: Mapping[int, Any]) -> None:
    """Raise Stopped, and say what goes on, once a signal has asked to stop."""
    if caught and at_work:
        numbers = " ".join(job.job_id for job in at_work.values())
        say(
            f"progan: stopped waiting, while the jobs go on; `scancel {numbers}` ends them,"
            f" and this waits for them again: progan {shlex.join(sys.argv[1:])}",
            error=True,
        )
    if caught:
        raise Stopped(caught[0])
