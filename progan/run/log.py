"""What a run writes down and shows while it works: stats, times, log lines, pictures, one progress display."""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import TypedDict

from PIL import Image
from rich.progress import TimeElapsedColumn
from torch import Tensor

from progan.images import write_png
from progan.run.dry_run import seconds_left
from progan.run.state import TrainState
from progan.schedule import Phase
from progan.support.errors import DivergedError, RunError, printable
from progan.support.files import write_text, write_whole
from progan.support.json_reader import parse_json
from progan.support.plain_files import LIST_BYTES, check_plain, read_plain
from progan.support.progress import duration, progress_bar
from progan.support.run_files import RunFolder, own_source


class RunLog:
    """Writer of a run's text files.

    stats.jsonl holds only what the run computed, so a resumed run writes the same bytes; times go to timing.jsonl.
    """

    def __init__(self, folder: RunFolder, state: TrainState) -> None:
        self.folder = folder
        self.state = state
        self.total = state.config.schedule.total_nimg
        self.place = os.stat(folder.lock)  # held open, so that no other file gets its number
        paths = (folder.stats, folder.timing, folder.log)
        try:
            for path in (folder.stats, folder.timing):
                cut_after(path, state.nimg)
            cut_measurements(folder.metrics, state.nimg)
            if folder.log.exists():
                check_plain(folder.log)
            self.stats, self.timing, self.log = (path.open("ab", buffering=0) for path in paths)
        except OSError as error:
            raise RunError(f"{error.filename}: cannot be used ({printable(error)}); move it away") from None
        self.progress = progress_bar("{task.fields[phase]}", "{task.fields[speed]}", TimeElapsedColumn)
        self.console = self.progress.console
        self.task = self.progress.add_task("", total=self.total, completed=state.nimg, phase="", speed="")
        self.clock = self.tick_clock = self.shown = time.perf_counter()
        self.tick_nimg = state.nimg

    def __enter__(self) -> "RunLog":
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        for file in (self.stats, self.timing, self.log):
            file.close()

    def step(self, phase: Phase, terms: dict[str, Tensor]) -> None:
        """Add a step's terms to the tick, without waiting for the device."""
        for name, value in terms.items():
            self.state.sums[name] = self.state.sums[name] + value if name in self.state.sums else value
        self.state.steps += 1
        now = time.perf_counter()
        self.state.seconds += now - self.clock
        self.clock = now
        if now - self.shown > 0.5:
            self.shown = now
            self.progress.update(self.task, completed=self.state.nimg, phase=title(phase), speed=self._speed())

    def tick(self, phase: Phase) -> None:
        """One line of stats: the mean of each term since the line before. Raises DivergedError if training did."""
        state = self.state
        means = {name: float(value) / state.steps for name, value in state.sums.items()}
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise DivergedError(
                f"{self.folder.path}: training diverged before {state.nimg / 1000:.1f} kimg ({bad[0]} is not a number);"
                " lower --lr, or use --precision fp32, in a new folder"
            )
        about = {"nimg": state.nimg, "resolution": phase.resolution, "alpha": phase.alpha, "batch": phase.batch}
        self._line(self.stats, json.dumps(about | means))
        now = time.perf_counter()
        speed = (state.nimg - self.tick_nimg) / (now - self.tick_clock)
        self._line(self.timing, json.dumps({"nimg": state.nimg, "seconds": state.seconds, "img_per_s": speed}))
        progress = f"{state.nimg / 1000:8.1f} kimg  {title(phase)}  {self._speed()}"
        self.tick_nimg, self.tick_clock = state.nimg, now
        losses = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        self._line(self.log, f"{progress}  {losses}")
        if not self.console.is_terminal:
            self.console.print(progress, soft_wrap=True)
        state.sums, state.steps = {}, 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not counted as time of training."""
        start = time.perf_counter()
        yield
        away = time.perf_counter() - start
        self.clock += away
        self.tick_clock += away

    def say(self, text: str) -> None:
        """A line for the log and the screen."""
        self._line(self.log, text)
        self.console.print(text, soft_wrap=True)

    def check_place(self) -> None:
        """Raise RunError when the run's folder is no longer where it was: nothing is written in its place."""
        try:
            there = os.path.samestat(os.stat(self.folder.lock), self.place)
        except OSError:
            there = False
        if not there:
            raise RunError(
                f"{self.folder.path}: the run's folder was moved or deleted; move it back, then the same command"
                " continues at the last checkpoint"
            )

    def picture(self, name: str, picture: Image.Image) -> None:
        """Write a picture into the run's folder, whole or not at all."""
        self.check_place()
        write_png(self.folder.path / name, picture)

    def _speed(self) -> str:
        speed = (self.state.nimg - self.tick_nimg) / max(time.perf_counter() - self.tick_clock, 1e-9)
        left = seconds_left(self.state.config, self.state.nimg, speed) if speed else math.inf
        return f"{speed:.0f} img/s  {duration(left)} left"

    def _line(self, file: RawIOBase, text: str) -> None:
        rest = memoryview(text.encode(errors="backslashreplace") + b"\n")
        try:
            while rest:  # a disk that fills up takes a part first, and only then says why
                rest = rest[file.write(rest) or 0 :]
        except OSError as error:
            raise RunError(
                f"{self.folder.path}: cannot be written ({error.strerror}); free some space, then the same command"
                f" continues at the last checkpoint"
            ) from None


def title(phase: Phase) -> str:
    """'32x32 alpha 0.25' while fading, '32x32' when stable."""
    fading = f" alpha {phase.alpha:.2f}" if phase.index % 2 else ""
    return f"{phase.resolution}x{phase.resolution}{fading}"


class _Line(TypedDict):
    nimg: int


class _Measured(_Line):
    source: str


def cut_after(path: Path, nimg: int) -> None:
    """Drop the lines that a run wrote after the checkpoint it goes on from, and a line cut short by a kill.

    Raises OSError when the file is no plain one.
    """
    if not path.exists():
        return
    kept = []
    for line in read_plain(path, LIST_BYTES).splitlines():
        try:
            if parse_json(line, _Line)["nimg"] > nimg:
                break
        except ValueError:
            break
        kept.append(line.decode() + "\n")
    write_text(path, "".join(kept))


def cut_measurements(path: Path, nimg: int) -> None:
    """Drop what a run measured of itself after that checkpoint; the lines of `progan evaluate` stay."""
    lines = read_plain(path, LIST_BYTES).splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if not _measured_after(line, nimg)]
    if kept != lines:
        write_whole(path, lambda file: file.writelines(kept))


def _measured_after(line: bytes, nimg: int) -> bool:
    try:
        row = parse_json(line, _Measured)
        return row["nimg"] > nimg and row["source"] == own_source(row["nimg"])
    except ValueError:
        return not line.endswith(b"\n")  # cut short by a kill
