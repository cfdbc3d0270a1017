"""`progan export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import Positional


@dataclass(frozen=True)
class Export:
    """Write what a run has learned in a form that needs neither progan nor PyTorch.

    --to web: one HTML page that draws pictures in the visitor's browser, opened from the disk by double click.
    """

    source: Positional[Path]
    """Run folder, or a .safetensors file."""
    to: Literal["web"]
    """Which form."""
    out: Path
    """The file; a page of this command is replaced, no other file is."""
    data: Path | None = None
    """The data set of the run, for weights that do not themselves say its author and licence."""
    title: str = "Pictures that never were"
    """Heading of the page."""

    def run(self) -> None:
        match self.to:
            case "web":
                from progan.export.web import export_page

                size = export_page(self.source, self.out, data=self.data, title=self.title)
                Console().print(f"{size / 1e6:.2f} MB: {self.out}; open it in a browser", soft_wrap=True)
