"""Where a run keeps its files."""

from pathlib import Path

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

    def newest_generator(self) -> Path:
        """The final generator, or the newest snapshot of a run under way; raises RunError if there is none."""
        if self.generator.exists():
            return self.generator
        if snapshots := sorted(self.snapshots.glob("generator-*.safetensors")):
            return snapshots[-1]
        raise RunError(f"{self.path}: holds no generator yet; give a run folder of progan train or a .safetensors file")

    def fakes(self) -> list[Path]:
        """The pictures of generated images, oldest first."""
        return sorted(self.path.glob("fakes-*.png"))

    def newest_fakes(self) -> Path:
        """The newest picture of generated images; the path of no file if there is none."""
        return max(self.fakes(), default=self.path / "fakes.png")


def own_source(nimg: int) -> str:
    """What a run calls its generator in metrics.jsonl; `progan evaluate` writes a path there."""
    return f"generator-{nimg:09d}"
