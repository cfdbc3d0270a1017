"""`progan export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import Positional


@dataclass(frozen=True)
class Export:
    """Write a trained generator in a form that needs neither progan nor PyTorch.

    web: one HTML page that opens from the disk in any browser, without a network: a slider from 4x4 up, faces for
    seeds, directions, walks.
    """

    source: Positional[Path]
    """Run folder, or a .safetensors file."""
    to: Literal["web"]
    """The form."""
    out: Path
    """The file; a page that this command wrote is replaced, any other file is not."""
    data: Path | None = None
    """The data set that it learned from, for weights that do not say what it was."""

    def run(self) -> None:
        match self.to:
            case "web":
                from progan.export.web import write_page

                size = write_page(self.source, self.out, data=self.data)
                Console().print(f"{size / 1e6:.2f} MB, one page: {self.out}", soft_wrap=True)
