"""Processes that begin with PyTorch imported: forks of one that imports it once, in a tenth of a second each."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest

# What training imports sooner or later; torch._dynamo, half of it, when it makes an optimizer.
IMPORTED = ["pytest", "progan.cli", "progan.training", "progan.studies.pool", "torch._dynamo"]


def quick_process(task: Callable[..., object], *what: object) -> Any:
    """A process at work on task(*what), which has nothing of this one; what it prints is lost in pytest's capture.

    Its environment variables are those that this process had when it first asked for one.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=task, args=what)
    process.start()
    return process


def quick_pools(patch: pytest.MonkeyPatch) -> None:
    """Worker processes that progan starts are forks of this process."""
    original = multiprocessing.get_context
    patch.setattr(multiprocessing, "get_context", lambda how=None: original("fork" if how == "spawn" else how))
