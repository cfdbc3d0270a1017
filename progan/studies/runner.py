"""Several training runs, each measured at its end: side by side, none done twice, and resumable one by one."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from progan.run.dry_run import work_left
from progan.studies.cluster import in_jobs
from progan.studies.display import Display
from progan.studies.experiment import Experiment, Record
from progan.studies.place import HERE, Place
from progan.studies.pool import in_processes
from progan.support.errors import ConfigError, UserError
from progan.support.terminal import say


@dataclass(frozen=True)
class Outcome:
    """What became of experiments: the record of each, in their order, None where it is not there.

    missing: the names of those; failure: what went wrong, for all that failed.
    """

    records: list[Record | None]
    missing: list[str]
    failure: UserError | None = None

    def check(self, written: Sequence[Path] = ()) -> None:
        """Raise what went wrong, if anything did; written: the report of the others, which is said where it is."""
        if self.failure is not None:
            if written:
                say(f"of the runs that are there: {', '.join(map(str, written))}")
            raise self.failure


def run_experiments(
    experiments: Sequence[Experiment], place: Place = HERE, *, threads: int = 1, quiet: bool = False
) -> Outcome:
    """Train what is missing, go on with what was interrupted, measure; a run that fails does not stop the others.

    place: where, and whether to wait. threads: of PyTorch in each run, which decide the last bits of what a CPU
    computes; so neither the place nor the number side by side changes anything. Raises ConfigError when an option is
    not allowed.
    """
    place.check()
    if threads < 1:
        raise ConfigError(f"--threads: {threads} is not allowed; use 1 or more")
    records = [experiment.record() for experiment in experiments]
    # The longest first, so that no core is idle while the last one runs.
    order = sorted(
        (i for i, record in enumerate(records) if record is None),
        key=lambda i: work_left(experiments[i].config, 0),
        reverse=True,
    )
    failures: list[UserError] = []
    work = in_jobs if place.on == "slurm" else in_processes
    with (
        Display(experiments, records, quiet) as display,
        closing(work({i: experiments[i] for i in order}, place, threads, display)) as ended,
    ):
        for i, result in ended:
            if isinstance(result, UserError):
                failures.append(type(result)(f"{experiments[i].name}: {result}"))
                display.failed(i)
            else:
                records[i] = result
                display.done(i, result)
    failure = type(failures[0])(*map(str, failures)) if failures else None
    missing = [one.name for one, record in zip(experiments, records, strict=True) if record is None]
    return Outcome(records, missing, failure)
