"""`progan modes`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from progan.studies.place import HERE, Place
from progan.support.config_io import split_names
from progan.support.errors import ConfigError


@dataclass(frozen=True)
class Modes:
    """Count how many of 1,000 modes, three stacked digits, are found with small discriminators (appendix E).

    The same command goes on where it stopped.
    """

    data: Path
    """Data set made by `progan data create mnist-rgb`; only the digit classifier sees its labels."""
    out: Path
    """Folder of table.md, table.json, modes.png, grid.png, the digit classifier, and a run for each variant."""
    scale: Literal["small", "paper"] = "small"
    """small: minutes per run on one CPU core; paper: the paper's 10 million images per run, for a GPU."""
    variants: str = "wgan-gp,normalization,minibatch-stddev,progressive"
    """Some of these; each adds to the one before."""
    divisors: str = "2,4"
    """Widths of D: one half and one quarter of G's."""
    seeds: int = 1
    """Runs of each, from random initialisations of their own."""
    device: str = "auto"
    """auto, cpu, cuda (all GPUs that there are), cuda:1 (that one) or mps."""
    place: Annotated[Place, arg(name="")] = HERE

    def run(self) -> None:
        from progan.studies.modes.report import markdown
        from progan.studies.modes.study import recover_modes
        from progan.studies.tables import not_there, show

        try:
            divisors = [int(word) for word in split_names(self.divisors)]
        except ValueError:
            raise ConfigError(f"--divisors: {self.divisors!r} is not a list of numbers such as 2,4") from None
        table = recover_modes(
            self.data,
            self.out,
            self.scale,
            variants=split_names(self.variants),
            divisors=divisors,
            seeds=self.seeds,
            device=self.place.device(self.device),
            place=self.place,
        )
        if not table["rows"]:
            show(not_there(table["missing"]), ())
            return
        show(markdown(table), (self.out / name for name in ("table.md", "table.json", "modes.png", "grid.png")))
