"""`progan modes`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

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
    jobs: int | None = None
    """How many to train side by side; by default as the machine allows."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def run(self) -> None:
        from progan.studies.modes.report import markdown
        from progan.studies.modes.study import recover_modes

        try:
            divisors = [int(word) for word in _words(self.divisors)]
        except ValueError:
            raise ConfigError(f"--divisors: {self.divisors!r} is not a list of numbers such as 2,4") from None
        table = recover_modes(
            self.data,
            self.out,
            self.scale,
            variants=_words(self.variants),
            divisors=divisors,
            seeds=self.seeds,
            jobs=self.jobs,
            device=self.device,
        )
        console = Console()
        console.print(markdown(table), markup=False, highlight=False, soft_wrap=True)
        written = ", ".join(str(self.out / name) for name in ("table.md", "table.json", "modes.png", "grid.png"))
        console.print(f"written to {written}", soft_wrap=True)


def _words(text: str) -> list[str]:
    """'a, b,' -> ['a', 'b']."""
    return [word.strip() for word in text.split(",") if word.strip()]
