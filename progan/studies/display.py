"""How far the runs of a study are, on the screen."""

import time
from collections.abc import Sequence

from rich.progress import TaskID, TimeElapsedColumn

from progan.studies.experiment import Experiment, Record, trained_nimg
from progan.support.progress import duration, progress_bar
from progan.support.run_files import RunFolder

SECONDS_BETWEEN_LINES = 60.0


class Display:
    """A bar per run on a terminal; elsewhere a line now and then, and when a run is done."""

    def __init__(self, experiments: Sequence[Experiment], records: Sequence[Record | None], quiet: bool) -> None:
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

    def __enter__(self) -> "Display":
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

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, soft_wrap=True, highlight=False)

    def failed(self, i: int) -> None:
        """Note that a run goes on no more."""
        self.progress.update(self.tasks[i], note="failed", done=True)

    def done(self, i: int, record: Record) -> None:
        """Say that a run is trained and measured."""
        self.finished += 1
        self.progress.update(self.tasks[i], completed=record["nimg"] / 1000, note="done", done=True)
        if not self.console.is_terminal:
            self.console.print(
                f"{self.experiments[i].name}: trained in {duration(record['seconds'])} and measured"
                f" ({self.finished} of {len(self.experiments)}, {duration(time.monotonic() - self.begun)} so far)",
                highlight=False,
            )
