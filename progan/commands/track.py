"""`progan track`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from progan.support.terminal import say


@dataclass(frozen=True)
class Track:
    """Send what a run has written to TensorBoard or Weights & Biases, while it trains or afterwards."""

    run_folder: Positional[Path]
    """Folder of the run."""
    out: Path
    """Folder for what the tracker reads; the same command again adds only what is new."""
    to: Literal["tensorboard", "wandb"] = "tensorboard"
    """tensorboard, or wandb, which stays offline unless WANDB_MODE says otherwise."""
    follow: bool = False
    """Go on until the run is done; Ctrl-C ends it, and nothing is lost."""

    def run(self) -> None:
        from progan.export.track import track

        count = track(self.run_folder, self.to, self.out, follow=self.follow)
        how = f"tensorboard --logdir {self.out}" if self.to == "tensorboard" else f"wandb sync {self.out}/wandb/*-run-*"
        say(f"{count} new steps, measurements and pictures in {self.out}; {how}")
