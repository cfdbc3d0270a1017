"""Where a run keeps its files."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from progan.support.errors import RunError, printable
from progan.support.json_reader import parse_json
from progan.support.plain_files import LIST_BYTES, check_plain, read_plain


class RunFolder:
    """Paths inside a run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.lock = path / ".lock"
        self.checkpoints = path / "checkpoints"
        self.snapshots = path / "snapshots"
        self.generator = path / "generator.safetensors"
        self.stats = path / "stats.jsonl"
        self.timing = path / "timing.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.machines = path / "machines.jsonl"
        self.log = path / "log.txt"
        self.reals = path / "reals.png"

    def newest_generator(self) -> Path:
        """The final generator, or a newer snapshot of a run under way; raises RunError if there is neither."""
        snapshots = sorted(self.snapshots.glob("generator-*.safetensors"))
        # A run that was finished once and then lengthened has both.
        if self.generator.exists() and (
            not snapshots or nimg_of_weights(self.generator) >= nimg_of_weights(snapshots[-1])
        ):
            return self.generator
        if snapshots:
            return snapshots[-1]
        raise RunError(f"{self.path}: holds no generator yet; give a run folder of progan train or a .safetensors file")

    def fakes(self) -> list[Path]:
        """The pictures of generated images, oldest first."""
        return [path for path in sorted(self.path.glob("fakes-*.png")) if path.stem[6:].isdecimal()]

    def newest_fakes(self) -> Path:
        """The newest picture of generated images; the path of no file if there is none."""
        return max(self.fakes(), default=self.path / "fakes.png")


def read_lines(path: Path, kind: type[Any] = dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of a .jsonl file that are whole and of a kind as `parse_json` takes it; none if there is no file.

    A line that a kill cut short is left out. Raises RunError when the file is there and cannot be read.
    """
    try:
        content = read_plain(path, LIST_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({printable(error)}); move it away") from None
    for line in content.splitlines():
        with suppress(ValueError):
            yield parse_json(line, kind)


def read_facts(path: Path) -> dict[str, Any]:
    """What stands beside the weights in a file, without reading them; {} for one that is another's or damaged."""
    from safetensors import SafetensorError, safe_open  # here, for the command line needs nothing of it

    try:
        check_plain(path)
        with safe_open(path, framework="np") as file:
            return parse_json((file.metadata() or {}).get("progan", "{}"), dict[str, Any])
    except (SafetensorError, OSError, ValueError):  # what is wrong with it, `load_network` says
        return {}


def nimg_of_weights(path: Path) -> float:
    """How far the training of these weights was; of weights that do not say, further than any that do."""
    nimg = read_facts(path).get("nimg")
    return nimg if isinstance(nimg, int) else math.inf


def own_source(nimg: int) -> str:
    """What a run calls its generator in metrics.jsonl; `progan evaluate` writes a path there."""
    return f"generator-{nimg:09d}"
