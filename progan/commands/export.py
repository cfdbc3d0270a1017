"""`progan export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from progan.support.terminal import say


@dataclass(frozen=True)
class Export:
    """Write what a run has learned in a form that needs neither progan nor PyTorch.

    --to web: one HTML page that draws pictures in the visitor's browser, opened from the disk by double click.
    --to onnx: one ONNX file with an output for every resolution (pip install "progan[onnx]").
    """

    source: Positional[Path]
    """Run folder, a .safetensors file, or hf://OWNER/NAME."""
    to: Literal["web", "onnx"]
    """Which form."""
    out: Path
    """The file; a page of this command is replaced, no other file is."""
    data: Path | None = None
    """web: the data set of the run, for weights that do not themselves say its author and licence."""
    title: str = "Pictures that never were"
    """web: heading of the page."""

    def run(self) -> None:
        match self.to:
            case "web":
                from progan.export.web import export_page

                size = export_page(self.source, self.out, data=self.data, title=self.title)
                say(f"{size / 1e6:.2f} MB: {self.out}; open it in a browser")
            case "onnx":
                from progan.export.onnx_file import write_onnx
                from progan.support.hub import weights_file
                from progan.weights import load_network

                g, about = load_network(weights_file(self.source), "generator")
                write_onnx(g.requires_grad_(False), about, self.out)
                say(f"{self.out.stat().st_size / 1e6:.2f} MB: {self.out}")
