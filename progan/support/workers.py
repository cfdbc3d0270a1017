"""Work for all cores: an ordered stream of jobs, a pool of processes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import islice
from typing import TypeVar

from progan.support.errors import DataError, printable
from progan.support.malloc import keep_freed_memory

MOST_WORKERS = 1024  # more than the cores of any machine

Job = TypeVar("Job")
Result = TypeVar("Result")


def work(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    total: int,
    together: int,
    workers: int | None = None,
    quiet: bool = False,
) -> Generator[Result, None, None]:
    """The results of function(job), in the order of the jobs, made by several processes, with progress on stderr.

    `function` and the jobs must be picklable when workers > 1. So many jobs travel together, and a process has at most
    two such parcels at a time: many spare quick jobs the way, few let slow ones stop soon. Close the iterator to stop
    early. Raises what `function` raises, and DataError when a worker process dies or workers < 1.
    """
    workers = worker_count(workers, total)
    chunk = max(1, min(together, total // workers))
    results = _here(function, jobs) if workers == 1 else _pooled(function, jobs, workers, chunk)
    with closing(results):
        if quiet:
            yield from results
        else:
            from progan.support.progress import with_progress  # here, for worker processes need nothing of it

            yield from with_progress(results, total)


def images_together(resolution: int) -> int:
    """How many jobs go together when the pixels of an image, or more, go with each: little memory, few messages."""
    return max(1, min(16, 2**18 // resolution**2))


def worker_count(asked: int | None, total: int) -> int:
    """How many processes to use for so many jobs, when `asked` leaves it open. Raises DataError when it is none."""
    if asked is not None and not 1 <= asked <= MOST_WORKERS:
        raise DataError(f"{printable(asked, 30)} worker processes cannot work; ask for 1 to {MOST_WORKERS:,}")
    # Starting a process costs as much as a few dozen images.
    return asked or min(cores(), max(1, total // 32))


def _here(function: Callable[[Job], Result], jobs: Iterable[Job]) -> Generator[Result, None, None]:
    for job in jobs:
        yield function(job)


def _pooled(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, chunk: int
) -> Generator[Result, None, None]:
    # Spawned, not forked: the caller may hold CUDA, OpenMP or progress-bar threads that do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        stream = iter(jobs)
        flying: deque[Future[list[Result]]] = deque()
        while True:
            while len(flying) < 2 * workers and (some := list(islice(stream, chunk))):
                flying.append(pool.submit(_work_off, function, some))
            if not flying:
                return
            yield from flying.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died; pass --workers 1 if memory was short, and in a script start from "
            '`if __name__ == "__main__":`'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _work_off(function: Callable[[Job], Result], jobs: list[Job]) -> list[Result]:
    return [function(job) for job in jobs]


def _start_worker() -> None:
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the pool
    end_with_parent()


def end_with_parent() -> None:
    """End this worker process when its parent is gone: a killed one cannot end its pool, which would live for ever."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
