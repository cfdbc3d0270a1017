"""`progan train`."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from progan.config import TrainConfig
from progan.presets import named_preset
from progan.support.config_io import check_resolution, parse_per_resolution
from progan.support.errors import ConfigError
from progan.support.run_files import RunFolder
from progan.support.terminal import say


@dataclass(frozen=True)
class Train:
    """Train on a data set, or continue: the same command goes on where the run stopped."""

    config: Annotated[TrainConfig, arg(name="")]
    data: Path | None = None
    """Data set made by `progan data create`."""
    out: Path | None = None
    """Folder of the run; made if it is not there, continued if it is."""
    preset: str = "demo"
    """Where the defaults come from: demo, paper-128, celebahq-1024, celebahq-1024-1gpu, celebahq-1024-8gpu, cifar10."""
    resolution: int | None = None
    """Full resolution of both networks in pixels."""
    total_kimg: float | None = None
    """Thousand real images of the whole run."""
    stable_kimg: float | None = None
    """Thousand images at each resolution before the next block enters."""
    fade_kimg: float | None = None
    """Thousand images during which a block fades in."""
    checkpoint_kimg: float | None = None
    """Thousand images between checkpoints."""
    snapshot_kimg: float | None = None
    """Thousand images between picture grids."""
    metrics_every_kimg: float | None = None
    """Thousand images between two measurements of --metrics."""
    batch: str | None = None
    """Images per minibatch: 16, or from a resolution up: 4:64,32:16."""
    lr: str | None = None
    """Adam's learning rate for G and D: 0.001, or from a resolution up: 4:0.001,1024:0.0015."""
    keep_every_kimg: float | None = None
    """Thousand images between checkpoints that are kept for good; without it only the newest two are there."""
    init: Path | None = None
    """A run, or a folder made by `progan import`: start from its networks, on any data, as far as they have grown."""
    branch: Path | None = None
    """A run to go on from in a new folder, as it was at --from-kimg; its config takes the place of the preset."""
    from_kimg: float | None = None
    """At which kept moment of that run; by default the newest."""
    dry_run: bool = False
    """Print the phases as a table and exit."""

    def run(self) -> None:
        from progan.data.store.pyramid import ImagePyramid
        from progan.schedule import Schedule
        from progan.training import fit_to_data, train

        config = self.settled()
        if self.init is not None and self.branch is not None:
            raise ConfigError("--init, --branch: the one takes networks, the other a whole run; give one of them")
        if self.from_kimg is not None and self.init is None and self.branch is None:
            raise ConfigError("--from-kimg: is a moment of another run; give that run with --init or --branch")
        moment = None if self.from_kimg is None else _nimg("--from-kimg", self.from_kimg)
        if self.init is not None:
            config = _networks_of(config, self.init, moment, self.resolution)
        data = None if self.data is None else ImagePyramid.open(self.data)
        if data is not None:
            config = fit_to_data(config, data)
        begun = self.out is not None and RunFolder(self.out).config.exists()
        if not begun:  # a run that was begun before this was asked goes on
            Schedule(config.schedule, config.g.resolution).check_grows()
        if self.dry_run:
            from progan.run.dry_run import plan_table

            say(plan_table(config))
            return
        if data is None or self.out is None:
            missing = "--data" if data is None else "--out"
            raise ConfigError(f"{missing}: is needed to train; only --dry-run goes without")
        train(config, data, self.out, self.init, branch=self.branch, from_nimg=moment)

    def settled(self) -> TrainConfig:
        """The preset with the plain flags applied."""
        config = self.config
        nimg = {
            name: _nimg(f"--{name}-kimg".replace("_", "-"), value)
            for name, value in (("total", self.total_kimg), ("stable", self.stable_kimg), ("fade", self.fade_kimg))
            if value is not None
        }
        changes: dict[str, Any] = {f"{name}_nimg": value for name, value in nimg.items()}
        if self.batch is not None:
            changes["batch"] = _per_resolution("--batch", self.batch, int)
        if self.lr is not None:
            changes["g_lr"] = changes["d_lr"] = _per_resolution("--lr", self.lr, float)
        config = replace(config, schedule=replace(config.schedule, **changes))
        if self.resolution is not None:
            check_resolution("--resolution", self.resolution)
            networks = {name: replace(getattr(config, name), resolution=self.resolution) for name in ("g", "d")}
            config = replace(config, **networks)
        cadences: dict[str, tuple[str, float | None]] = {
            "checkpoint_nimg": ("--checkpoint-kimg", self.checkpoint_kimg),
            "snapshot_nimg": ("--snapshot-kimg", self.snapshot_kimg),
            "metrics_nimg": ("--metrics-every-kimg", self.metrics_every_kimg),
            "keep_every_nimg": ("--keep-every-kimg", self.keep_every_kimg),
        }
        every = {field: _nimg(flag, kimg) for field, (flag, kimg) in cadences.items() if kimg is not None}
        return replace(config, **every)  # type: ignore[arg-type]


def preset_config(argv: list[str]) -> TrainConfig:
    """The config that --preset or --branch names, before the other flags are read; the demo's without one."""
    name, run = given(argv, "--preset"), given(argv, "--branch")
    if run is not None:
        if name is not None:
            raise ConfigError("--preset, --branch: a branch has the config of its run; leave out --preset")
        from progan.run.folder import read_config

        return read_config(RunFolder(Path(run)), "give --branch the folder of a run")[0]
    return named_preset(name or "demo").config


def given(argv: list[str], flag: str) -> str | None:
    """What a flag was given on the command line, the last time."""
    found = None
    for i, word in enumerate(argv):
        if word == flag and i + 1 < len(argv):
            found = argv[i + 1]
        elif word.startswith(f"{flag}="):
            found = word.removeprefix(f"{flag}=")
    return found


def _networks_of(config: TrainConfig, init: Path, nimg: int | None, resolution: int | None) -> TrainConfig:
    from progan.run.start import read_start

    start = read_start(init, nimg)
    wanted: dict[str, Any] = {} if resolution is None else {"resolution": resolution}
    return replace(config, g=replace(start.g, **wanted), d=replace(start.d, **wanted))


def _nimg(name: str, kimg: float) -> int:
    if not 0 <= kimg < math.inf:
        raise ConfigError(f"{name}: {kimg} is not allowed; use 0 or more thousand images")
    return round(kimg * 1000)


def _per_resolution(name: str, text: str, kind: type) -> dict[int, Any]:
    try:
        return parse_per_resolution(text, kind)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
