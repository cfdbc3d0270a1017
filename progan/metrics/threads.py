"""Threads that each compute alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def worker_threads() -> Iterator[ThreadPoolExecutor]:
    """As many threads as PyTorch uses, in each of which its operations use one.

    Small operations gain more from this than from being split themselves, and threads that wait for each other at the
    end of every operation lose everything when another process takes a core.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        # A thread's setting is its own, but threads that start later take over the last one made anywhere; so this
        # waits until every worker has ended.
        torch.set_num_threads(threads)
