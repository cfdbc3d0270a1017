"""`progan cifar10`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from progan.studies.place import HERE, Place


@dataclass(frozen=True)
class Cifar10:
    """Train the paper's CIFAR-10 network without labels and measure its inception score (section 6.5).

    The same command goes on where it stopped. The paper has 8.80 in its best run, 8.56 on average over ten.
    """

    data: Path
    """Data set of 32x32 colour images, made by `progan data create cifar10`; labels are not used."""
    out: Path
    """Folder of table.md, table.json, grid.png, and a run seed0, seed1, ... for each network."""
    scale: Literal["small", "paper"] = "small"
    """small: a narrow network, minutes on one CPU core; paper: the paper's 20 million images, for a GPU."""
    seeds: int = 1
    """How many networks to train, from random initialisations of their own."""
    inception_weights: Path | None = None
    """File of the Inception network; by default torch-fidelity downloads it for paper, and small does without."""
    device: str = "auto"
    """auto, cpu, cuda (all GPUs that there are), cuda:1 (that one) or mps."""
    place: Annotated[Place, arg(name="")] = HERE

    def run(self) -> None:
        from progan.studies.cifar10 import cifar10
        from progan.studies.tables import show

        text, written = cifar10(
            self.data,
            self.out,
            self.scale,
            seeds=self.seeds,
            weights=self.inception_weights,
            device=self.place.device(self.device),
            place=self.place,
        )
        show(text, written)
