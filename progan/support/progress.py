"""Progress on stderr: a bar on a terminal, elsewhere silence or now and then a line."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from progan.support.terminal import Terminal, say

SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")


def progress_bar(
    before: str, *after: str | type[ProgressColumn], quiet: bool = False, transient: bool = True
) -> Progress:
    """A bar between a text and other columns, shown on a terminal only.

    before, after: texts may name fields of the task, "{task.fields[phase]}". transient: it vanishes at the end.
    """
    console = Terminal(stderr=True, quiet=quiet)
    start = [TextColumn(before, markup=False)] if before else []
    columns = [TextColumn(column, markup=False) if isinstance(column, str) else column() for column in after]
    disable = quiet or not console.is_terminal
    return Progress(*start, BarColumn(), *columns, console=console, disable=disable, transient=transient)


def counted(text: str, stream: Iterable[np.ndarray], total: int, quiet: bool) -> Iterator[np.ndarray]:
    """The stream of batches, its images counted on the screen if that is a terminal."""
    with progress_bar(text, MofNCompleteColumn, TimeRemainingColumn, quiet=quiet) as progress:
        task = progress.add_task("", total=total)
        for images in stream:
            progress.advance(task, len(images))
            yield images


def with_progress(results: Iterable[T], total: int, what: str = "images") -> Iterator[T]:
    """The results as they come, with a bar on a terminal and now and then a line elsewhere."""
    start = last_line = time.monotonic()
    with progress_bar("", MofNCompleteColumn, "{task.fields[rate]}", TimeRemainingColumn, transient=False) as progress:
        task = progress.add_task("", total=total, rate="")
        for done, result in enumerate(results, 1):
            yield result
            now = time.monotonic()
            rate = done / max(now - start, 1e-9)
            progress.update(task, completed=done, rate=f"{rate:,.0f} img/s")
            if not progress.console.is_terminal and (done == total or now - last_line > SECONDS_BETWEEN_LINES):
                last_line = now
                left = (total - done) / rate
                line = f"{done:,} of {total:,} {what}, {rate:,.0f} img/s, {left:,.0f} s left"
                say(line, error=True)


def duration(seconds: float) -> str:
    """'3 h 07 min', '12 min', '40 s'."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
