"""Experiments side by side in processes of this machine, each process on a GPU of its own while there are enough."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from progan.studies.display import Display
from progan.studies.experiment import Experiment, Record
from progan.studies.place import Place
from progan.support.device import pick_device
from progan.support.errors import RunError, Stopped, UserError
from progan.support.workers import cores, end_with_parent


def in_processes(
    experiments: Mapping[int, Experiment], place: Place, threads: int, display: Display
) -> Generator[tuple[int, Record | UserError], None, None]:
    """Train and measure experiments, begun in their order: (number, its record or what went wrong), as they end.

    When it is closed before its end, the runs at work are saved. Nothing is done for a place that does not wait.
    """
    if not place.wait or not experiments:
        return
    gpus = gpus_for(pick_device(next(iter(experiments.values())).config.device))
    jobs = place.jobs or (max(1, cores() // threads) if gpus is None else max(1, gpus))
    with _pool(min(jobs, len(experiments)), threads, gpus or 0) as pool:
        futures = {pool.submit(_run, experiment): i for i, experiment in experiments.items()}
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            display.look()
            for future in done:
                try:
                    yield futures[future], future.result()
                except UserError as error:
                    yield futures[future], error
                except BrokenProcessPool:
                    advice = "pass a smaller --jobs if memory was short, and run the same command again"
                    yield futures[future], RunError(f"a worker process died; {advice}")
                    return


def gpus_for(device: torch.device) -> int | None:
    """How many GPUs the workers may choose from: the machine's, 0 where `device` is one alone; None for a CPU."""
    if device.type == "cpu":
        return None
    return torch.cuda.device_count() if device.type == "cuda" and device.index is None else 0


def take_gpu(gpus: int, taken: Any) -> None:
    """Make the next GPU this process's "cuda", round and round; taken: how many were given out, for all processes."""
    with taken.get_lock():
        number = taken.value
        taken.value += 1
    torch.cuda.set_device(number % gpus)


def _run(experiment: Experiment) -> Record:
    """Inside a worker. Raises Stopped once the worker was asked to stop."""
    with _Worker():
        return experiment.run()


@contextmanager
def _pool(jobs: int, threads: int, gpus: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; when the block ends early, they save what they have trained."""
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(threads, gpus, context.Value("i", 0)))
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


def _start(threads: int, gpus: int, taken: Any) -> None:
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C is the parent's to answer; it asks the workers to save
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  what a run says is in its log.txt
    torch.set_num_threads(threads)
    end_with_parent()
    if gpus:
        take_gpu(gpus, taken)
