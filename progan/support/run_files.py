"""Where a run keeps its files."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from progan.support.errors import RunError


class RunFolder:
    """Paths inside a run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.checkpoints = path / "checkpoints"
        self.snapshots = path / "snapshots"
        self.generator = path / "generator.safetensors"
        self.stats = path / "stats.jsonl"
        self.timing = path / "timing.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "log.txt"
        self.reals = path / "reals.png"

    def newest_generator(self) -> Path:
        """The final generator, or a newer snapshot of a run under way; raises RunError if there is neither."""
        snapshots = sorted(self.snapshots.glob("generator-*.safetensors"))
        # A run that was finished once and then lengthened has both.
        if self.generator.exists() and (not snapshots or _nimg(self.generator) >= _nimg(snapshots[-1])):
            return self.generator
        if snapshots:
            return snapshots[-1]
        raise RunError(f"{self.path}: holds no generator yet; give a run folder of progan train or a .safetensors file")

    def fakes(self) -> list[Path]:
        """The pictures of generated images, oldest first."""
        return sorted(self.path.glob("fakes-*.png"))

    def newest_fakes(self) -> Path:
        """The newest picture of generated images; the path of no file if there is none."""
        return max(self.fakes(), default=self.path / "fakes.png")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, none if there is no file; a line that a kill cut short is left out."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _nimg(path: Path) -> float:
    """How far the training of these weights was; of weights that do not say, further than any that do."""
    try:
        with safe_open(path, framework="np") as file:
            return float(json.loads((file.metadata() or {})["progan"])["nimg"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return math.inf  # what is wrong with a damaged file, its reader says


def own_source(nimg: int) -> str:
    """What a run calls its generator in metrics.jsonl; `progan evaluate` writes a path there."""
    return f"generator-{nimg:09d}"
