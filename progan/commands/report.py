"""`progan report`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from progan.support.errors import ConfigError
from progan.support.terminal import say


@dataclass(frozen=True)
class Report:
    """Write a run, two runs side by side, or a study as one HTML file that can be mailed and printed.

    Pictures, growth, curves, metrics, settings and the commands that make it again, under 10 MB, without JavaScript.
    The same folder gives the same bytes.
    """

    runs: Positional[tuple[Path, ...]]
    """One run folder, two, or the folder of a study."""
    out: Path
    """The file: report.html."""
    data: Path | None = None
    """The data set of the run: the report then says how it was made, and who made what it holds."""
    title: str | None = None
    """Heading; by default the folder's name."""
    overwrite: bool = False
    """Write over a file that is there."""

    def run(self) -> None:
        from progan.support.files import check_free
        from progan.view.report import write_report

        if not self.overwrite:
            check_free("--out", self.out)
        if not self.out.parent.is_dir():
            raise ConfigError(f"--out: there is no folder {self.out.parent}; make it first or choose another")
        size = write_report(self.runs, self.out, data=self.data, title=self.title)
        say(f"{size / 1e6:.2f} MB: {self.out}; open it in a browser")
