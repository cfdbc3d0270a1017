"""`progan generate`."""

import re
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from progan.support.errors import ConfigError
from progan.support.terminal import say

MOST_NUMBERS = 1_000_000
MOST_CELLS = 100_000


@dataclass(frozen=True)
class Generate:
    """Write images of a trained generator: one PNG per seed, and a grid on request."""

    source: Positional[Path]
    """Run folder, a .safetensors file, or hf://OWNER/NAME."""
    out: Path
    """Folder for the pictures."""
    seeds: str = "0-63"
    """Which images: 0-63,100."""
    grid: str | None = None
    """Also one picture of COLUMNSxROWS images, as 8x8."""
    resolution: int | None = None
    """Pixels; by default as far as the network has grown."""
    alpha: float | None = None
    """Weight of the newest block, 0 to 1; by default as far as it has faded in."""
    labels: str | None = None
    """Classes for a network with labels, 0-9 or 3: one image per seed and class; by default the seed decides."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    overwrite: bool = False
    """Write over pictures in the folder of a run, a study or a data set."""

    def run(self) -> None:
        from progan.sampling.images import write_images
        from progan.support.files import check_free

        if not self.overwrite:  # elsewhere its pictures may replace those of before
            check_free("--out", *(self.out / name for name in ("config.json", "study.json", "dataset.json")))
        seeds = parse_numbers("--seeds", self.seeds)
        classes = None if self.labels is None else parse_numbers("--labels", self.labels)
        grid = None if self.grid is None else parse_grid(self.grid)
        written = write_images(
            self.source,
            self.out,
            seeds,
            classes=classes,
            grid=grid,
            resolution=self.resolution,
            alpha=self.alpha,
            device=self.device,
        )
        say(f"{written} pictures in {self.out}" + ("; the grid is grid.png" if grid else ""))


def parse_numbers(name: str, text: str) -> list[int]:
    """'0-3,100' -> [0, 1, 2, 3, 100]; raises ConfigError for anything else."""
    numbers: list[int] = []
    if re.search(r"\d{19}", text):
        raise ConfigError(f"{name}: a number of over 18 digits is not allowed; use smaller ones")
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ConfigError(f"{name}: {text!r} is not a list of numbers and rising ranges such as 0-63,100")
        part_of = range(int(match[1]), int(match[2] or match[1]) + 1)
        if len(numbers) + len(part_of) > MOST_NUMBERS:
            raise ConfigError(f"{name}: {text} are over {MOST_NUMBERS:,} numbers; ask for fewer at a time")
        numbers += part_of
    return numbers


def parse_grid(text: str) -> tuple[int, int]:
    """'8x4' -> (8, 4): columns and rows; raises ConfigError for anything else."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match or len(text) > 12:
        raise ConfigError(f"--grid: {text!r} is not COLUMNSxROWS such as 8x8")
    columns, rows = int(match[1]), int(match[2])
    if columns * rows > MOST_CELLS:
        raise ConfigError(f"--grid: {text} has over {MOST_CELLS:,} cells; ask for fewer")
    return columns, rows
