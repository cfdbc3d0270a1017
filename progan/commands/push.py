"""`progan push`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from progan.support.terminal import say


@dataclass(frozen=True)
class Push:
    """Put a trained generator on the Hugging Face hub: weights, config, pictures, a model card written from the run.

    Then progan.load_generator("hf://OWNER/NAME") has it anywhere. Needs pip install "progan[hub]" and `hf auth login`.
    """

    source: Positional[Path]
    """Run folder, or a .safetensors file."""
    name: Positional[str]
    """OWNER/NAME on the hub; made if it is not there."""
    private: bool = False
    """A new repository is seen by its owner alone."""
    out: Path | None = None
    """Write the files into this new folder and send nothing: to read the card first."""

    def run(self) -> None:
        from progan.export.hub import push, write_files

        if self.out is not None:
            write_files(self.source, self.name, self.out)
            say(f"written to {self.out}; nothing was sent")
        else:
            say(f"pushed: {push(self.source, self.name, private=self.private)}")
