"""Runs of studies without the start of a process each."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

import progan.studies.pool


class Here:
    """A pool whose work is done in this process, as it is handed in."""

    def submit(self, function: Any, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            try:
                future.set_result(function(*args))
            except Exception as error:
                future.set_exception(error)
        return future


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are trained and measured here, one after the other, with whatever the test has put in place."""

    @contextlib.contextmanager
    def pool(jobs: int, threads: int, gpus: int) -> Iterator[Here]:
        yield Here()

    monkeypatch.setattr(progan.studies.pool, "_pool", pool)
