"""Several training runs, each measured at its end: side by side in processes, and resumable one by one."""

import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import torch
from rich.progress import TaskID, TimeElapsedColumn

from progan.config import TrainConfig
from progan.data.store.manifest import MANIFEST
from progan.data.store.pyramid import ImagePyramid
from progan.networks import parameter_count
from progan.run.dry_run import work_left
from progan.run.folder import read_config
from progan.run.state import FREE_FIELDS
from progan.support.config_io import flat_fields
from progan.support.device import pick_device
from progan.support.errors import ConfigError, RunError, Stopped, UserError
from progan.support.files import write_json
from progan.support.json_reader import parse_json, read_json
from progan.support.plain_files import CONFIG_BYTES, open_plain
from progan.support.progress import duration, progress_bar
from progan.support.run_files import RunFolder
from progan.support.workers import cores, end_with_parent
from progan.training import train

RESULT = "result.json"
SECONDS_BETWEEN_LINES = 60.0
# How far a run goes may change from one part of it to the next, but makes another result.
WITHOUT_RESULT = set(FREE_FIELDS) - {"schedule.total_nimg"}


class Measure(Protocol):
    """What is done with a finished run: a frozen dataclass that can be pickled.

    Its fields decide the result, but for those that are not compared.
    """

    def __call__(self, folder: RunFolder) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Experiment:
    """A training run and what is measured at its end.

    name: for people; config: fitted to the data; data: folder of a data set; folder: the run's; result: name of the
    file in it that keeps the record.
    """

    name: str
    config: TrainConfig
    data: Path
    folder: Path
    measure: Measure
    result: str = RESULT

    def key(self) -> dict[str, Any]:
        """All that decides the record: configuration, data, and what is measured."""
        fields = {name: value for name, value in flat_fields(self.config) if name not in WITHOUT_RESULT}
        measure = {
            field.name: _content(getattr(self.measure, field.name))
            for field in dataclasses.fields(self.measure)  # type: ignore[arg-type]
            if field.compare
        }
        key = {
            "config": fields,
            "data": _content(self.data),
            "measure": [type(self.measure).__name__, measure],
        }
        return dict(json.loads(json.dumps(key, default=str)))  # as it will be read back, to be compared

    def record(self) -> dict[str, Any] | None:
        """The record of before, if it is whole and of the same key."""
        try:
            saved = read_json(self.folder / self.result, _Saved, CONFIG_BYTES)
            fields = saved["key"]["config"]
            if fields["precision"] == "auto":  # of a time when a record did not say what that had come to
                fields["precision"] = read_config(RunFolder(self.folder), "")[0].precision
            return saved["record"] if saved["key"] == self.key() else None
        except (OSError, ValueError, KeyError, TypeError, RunError):
            return None


class _Saved(TypedDict):
    key: dict[str, Any]
    record: dict[str, Any]


class _Line(TypedDict):
    nimg: int


def run_experiments(
    experiments: Sequence[Experiment], *, jobs: int | None = None, threads: int = 1, quiet: bool = False
) -> list[dict[str, Any]]:
    """Train what is missing, go on with what was interrupted, measure; the record of each experiment, in their order:
    {"name", "seconds" of training, "nimg", "parameters": {"g", "d"}, and what `measure` returned}.

    jobs: runs side by side, by default as many as the cores allow, on a GPU one. threads: of PyTorch in each, which
    decide the last bits of what a CPU computes; so the number of jobs changes nothing. A run that fails does not stop
    the others: UserError names it when they are done. Raises ConfigError when jobs or threads are below 1.
    """
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name}: {value} is not allowed; use 1 or more")
    records = [experiment.record() for experiment in experiments]
    missing = [i for i, record in enumerate(records) if record is None]
    if jobs is None:
        on_cpu = not missing or pick_device(experiments[missing[0]].config.device).type == "cpu"
        jobs = max(1, cores() // threads) if on_cpu else 1
    failures: list[UserError] = []
    # The longest first, so that no core is idle while the last one runs.
    order = sorted(missing, key=lambda i: work_left(experiments[i].config, 0), reverse=True)
    if order:
        with _pool(min(jobs, len(order)), threads) as pool, _Display(experiments, records, quiet) as display:
            futures = {pool.submit(_run, experiments[i]): i for i in order}
            for future in _completed(futures, display):
                i = futures[future]
                try:
                    records[i] = future.result()
                    display.done(i, records[i] or {})
                except UserError as error:
                    failures.append(type(error)(f"{experiments[i].name}: {error}"))
                except BrokenProcessPool:
                    raise RunError(
                        f"{experiments[i].name}: a worker process died; pass a smaller --jobs if memory was short,"
                        " and run the same command again"
                    ) from None
    if failures:
        raise failures[0]
    return [record for record in records if record is not None]


def _run(experiment: Experiment) -> dict[str, Any]:
    """Inside a worker: train to the end, measure, keep the record. Raises Stopped once the worker was asked to stop."""
    with _Worker():
        state = train(experiment.config, ImagePyramid.open(experiment.data), experiment.folder)
        record = {
            "name": experiment.name,
            "seconds": round(state.seconds, 1),
            "nimg": state.nimg,
            "parameters": {"g": parameter_count(state.g), "d": parameter_count(state.d)},
            **experiment.measure(RunFolder(experiment.folder)),
        }
        write_json(experiment.folder / experiment.result, {"key": experiment.key(), "record": record})
    return record


@contextmanager
def _pool(jobs: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; when the block ends early, they save what they have trained."""
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(threads,))
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)
        raise


class _Worker:
    """What this process is at, for SIGTERM: a pool hands out one job more than it has workers, whatever happens."""

    stopped = False
    busy = False

    def __enter__(self) -> None:
        if _Worker.stopped:
            raise Stopped(signal.SIGTERM)
        _Worker.busy = True

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        _Worker.busy = False
        if isinstance(error, Stopped):  # training answers the signal itself
            _Worker.stopped = True


def _stop(signum: int, frame: object) -> None:
    _Worker.stopped = True
    if _Worker.busy:
        raise Stopped(signum)


def _start(threads: int) -> None:
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C is the parent's to answer; it asks the workers to save
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  what a run says is in its log.txt
    torch.set_num_threads(threads)
    end_with_parent()


def _completed(futures: dict[Future[Any], int], display: "_Display") -> Iterator[Future[Any]]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
        display.look()
        yield from done


class _Display:
    """A bar per run on a terminal; elsewhere a line now and then, and when a run is done."""

    def __init__(self, experiments: Sequence[Experiment], records: Sequence[Any], quiet: bool) -> None:
        self.experiments, self.quiet = experiments, quiet
        kimg = "{task.completed:.0f} of {task.total:.0f} kimg {task.fields[note]}"
        self.progress = progress_bar("{task.description}", kimg, TimeElapsedColumn, quiet=quiet, transient=False)
        self.console = self.progress.console
        self.tasks: dict[int, TaskID] = {}
        for i, (experiment, record) in enumerate(zip(experiments, records, strict=True)):
            if record is None:
                total = experiment.config.schedule.total_nimg / 1000
                self.tasks[i] = self.progress.add_task(experiment.name, total=total, start=False, note="", done=False)
        self.begun = self.last_line = time.monotonic()
        self.finished = len(experiments) - len(self.tasks)
        if self.finished:
            self.console.print(f"{self.finished} of {len(experiments)} runs are there already", soft_wrap=True)

    def __enter__(self) -> "_Display":
        self.progress.start()
        return self

    def __exit__(self, *what: object) -> None:
        self.progress.stop()

    def look(self) -> None:
        """Read from the runs' folders how far they are."""
        due = time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES
        if self.quiet or not (self.console.is_terminal or due):
            return
        running = []
        for i, task in self.tasks.items():
            experiment = self.experiments[i]
            nimg, total = trained_nimg(RunFolder(experiment.folder)), experiment.config.schedule.total_nimg
            if nimg and not self.progress.tasks[task].fields["done"]:
                self.progress.start_task(task)
                self.progress.update(task, completed=nimg / 1000, note="measuring" if nimg >= total else "")
                running.append(f"{experiment.name}: {nimg / 1000:.1f} of {total / 1000:g} kimg")
        if running and not self.console.is_terminal:
            self.last_line = time.monotonic()
            self.console.print("; ".join(running), soft_wrap=True)

    def done(self, i: int, record: dict[str, Any]) -> None:
        """Say that a run is trained and measured."""
        self.finished += 1
        self.progress.update(self.tasks[i], completed=record["nimg"] / 1000, note="done", done=True)
        if not self.console.is_terminal:
            self.console.print(
                f"{self.experiments[i].name}: trained in {duration(record['seconds'])} and measured"
                f" ({self.finished} of {len(self.experiments)}, {duration(time.monotonic() - self.begun)} so far)",
                highlight=False,
            )


def trained_nimg(folder: RunFolder) -> int:
    """How far a run is, from the last whole line of its stats; 0 before the first."""
    try:
        with open_plain(folder.stats) as file:
            file.seek(max(0, folder.stats.stat().st_size - 4096))
            lines = file.read().split(b"\n")
        return parse_json(lines[-2], _Line)["nimg"] if len(lines) > 1 else 0
    except (OSError, ValueError):
        return 0


def _content(value: Any) -> Any:
    """A data set's folder stands for its content; other values for themselves."""
    if isinstance(value, Path) and (value / MANIFEST).exists():
        return ImagePyramid.open(value).hash
    return value
