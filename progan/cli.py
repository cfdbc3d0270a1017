"""`progan ...`: parse, call, print. Heavy imports wait until a command needs them, so that --help is quick."""

import re
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from progan.config import TrainConfig, check_resolution, parse_per_resolution
from progan.errors import ConfigError, UserError
from progan.presets import PRESETS


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
    batch: str | None = None
    """Images per minibatch: 16, or from a resolution up: 4:64,32:16."""
    lr: str | None = None
    """Adam's learning rate for G and D: 0.001, or from a resolution up: 4:0.001,1024:0.0015."""
    init: Path | None = None
    """Folder made by `progan import`: start from its networks, fully grown."""
    dry_run: bool = False
    """Print the phases as a table and exit."""

    def run(self) -> None:
        from progan.data.pyramid import ImagePyramid
        from progan.train import fit_to_data, train

        config = self.settled()
        if self.init is not None:
            config = _networks_of(config, self.init)
        data = None if self.data is None else ImagePyramid.open(self.data)
        if data is not None:
            config = fit_to_data(config, data)
        if self.dry_run:
            from progan.plan import plan_table

            _console().print(plan_table(config))
            return
        if data is None or self.out is None:
            missing = "--data" if data is None else "--out"
            raise ConfigError(f"{missing}: is needed to train; only --dry-run goes without")
        train(config, data, self.out, self.init)

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
        if self.checkpoint_kimg is not None:
            config = replace(config, checkpoint_nimg=_nimg("--checkpoint-kimg", self.checkpoint_kimg))
        if self.snapshot_kimg is not None:
            config = replace(config, snapshot_nimg=_nimg("--snapshot-kimg", self.snapshot_kimg))
        return config


@dataclass(frozen=True)
class Generate:
    """Write images of a trained generator: one PNG per seed, and a grid on request."""

    source: Positional[Path]
    """Run folder, or a .safetensors file."""
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

    def run(self) -> None:
        from progan.generate import write_images

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
        _console().print(f"{written} pictures in {self.out}" + ("; the grid is grid.png" if grid else ""))


@dataclass(frozen=True)
class Import:
    """Read an official TensorFlow snapshot (.pkl) without TensorFlow and without running anything in it."""

    snapshot: Positional[Path]
    """The official .pkl file with G, D and Gs."""
    out: Path
    """Folder for generator.safetensors (Gs), g.safetensors and d.safetensors."""

    def run(self) -> None:
        from progan.interop.official import read
        from progan.state import save_network

        snapshot = read(self.snapshot)
        self.out.mkdir(parents=True, exist_ok=True)
        resolution = snapshot.g.config.resolution // 2 ** int(snapshot.lod)
        stage = {"nimg": 0, "resolution": resolution, "alpha": 1.0 - snapshot.lod % 1.0}
        for name, network in (("generator", snapshot.gs), ("g", snapshot.g), ("d", snapshot.d)):
            save_network(self.out / f"{name}.safetensors", network, **stage)
        _console().print(f"generator.safetensors, g.safetensors and d.safetensors in {self.out}")


@dataclass(frozen=True)
class CreateFaces:
    """Compose faces from drawn parts: aligned, colourful, unlimited, the same for the same seed."""

    out: Path
    """Folder of the data set."""
    count: int
    """Number of faces."""
    resolution: int
    """Pixels, a power of two from 4 up."""
    first_seed: int = 0
    """Seed of the first face; the others follow."""
    workers: int | None = None
    """Processes; all cores by default."""

    def run(self) -> None:
        from progan.data.create import create_faces, describe

        made = create_faces(
            self.out,
            count=self.count,
            resolution=self.resolution,
            first_seed=self.first_seed,
            workers=self.workers,
            command=_command(),
        )
        _console().print(describe(made))


@dataclass(frozen=True)
class CreateFolder:
    """A data set from a folder of pictures, sub-folders included."""

    src: Positional[Path]
    """Folder of image files."""
    out: Path
    """Folder of the data set."""
    resolution: int | None = None
    """Pixels, a power of two from 4 up; by default the largest that the smallest picture fills."""
    crop: Literal["none", "center"] = "none"
    """How to make a picture square: center cuts the long side."""
    pad: bool = False
    """Make a picture square with black borders instead."""
    labels: Literal["none", "folders"] = "none"
    """folders: the first-level folder of a picture is its class."""
    channels: Literal[1, 3] = 3
    """Colour channels of the data set."""
    on_bad: Literal["fail", "skip"] = "fail"
    """What to do about a file that cannot be used: refuse and name all, or leave them out and name them."""
    workers: int | None = None
    """Processes; all cores by default."""

    def run(self) -> None:
        from progan.data.create import create_folder, describe

        made = create_folder(
            self.src,
            self.out,
            resolution=self.resolution,
            crop=self.crop,
            pad=self.pad,
            labels=self.labels,
            channels=self.channels,
            on_bad=self.on_bad,
            workers=self.workers,
            command=_command(),
        )
        _console().print(describe(made))


@dataclass(frozen=True)
class Create:
    """Make a data set."""

    source: Annotated[
        Annotated[CreateFaces, subcommand(name="faces")] | Annotated[CreateFolder, subcommand(name="folder")],
        arg(name=""),
    ]

    def run(self) -> None:
        self.source.run()


@dataclass(frozen=True)
class Info:
    """What a data set holds."""

    data: Positional[Path]
    """Folder of the data set."""
    verify: bool = False
    """Also read every byte and compare with the manifest's hashes."""

    def run(self) -> None:
        from progan.data.create import describe
        from progan.data.pyramid import ImagePyramid

        pyramid = ImagePyramid.open(self.data)
        if self.verify:
            pyramid.verify()
        _console().print(describe(pyramid))
        if self.verify:
            _console().print("every file matches the manifest")


@dataclass(frozen=True)
class Data:
    """Make and look at data sets."""

    action: Annotated[
        Annotated[Create, subcommand(name="create")] | Annotated[Info, subcommand(name="info")], arg(name="")
    ]

    def run(self) -> None:
        self.action.run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user's mistake, 128 + signal when stopped."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        command = tyro.cli(
            Annotated[Train, subcommand(name="train", default=Train(config=_preset(argv)))]
            | Annotated[Generate, subcommand(name="generate")]
            | Annotated[Data, subcommand(name="data")]
            | Annotated[Import, subcommand(name="import")],
            prog="progan",
            description="Progressive growing of GANs (Karras et al., ICLR 2018).",
            args=argv,
        )
        command.run()
    except UserError as error:
        print(f"progan: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("progan: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        signum = getattr(error, "signum", None)
        if signum is None:
            raise
        return 128 + signum
    return 0


def parse_numbers(name: str, text: str) -> list[int]:
    """'0-3,100' -> [0, 1, 2, 3, 100]; raises ConfigError for anything else."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ConfigError(f"{name}: {text!r} is not a list of numbers and rising ranges such as 0-63,100")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers


def parse_grid(text: str) -> tuple[int, int]:
    """'8x4' -> (8, 4): columns and rows; raises ConfigError for anything else."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise ConfigError(f"--grid: {text!r} is not COLUMNSxROWS such as 8x8")
    return int(match[1]), int(match[2])


def _preset(argv: list[str]) -> TrainConfig:
    """The config that --preset names, before the other flags are read; the demo's without one."""
    name = "demo"
    for i, word in enumerate(argv):
        if word == "--preset" and i + 1 < len(argv):
            name = argv[i + 1]
        elif word.startswith("--preset="):
            name = word.removeprefix("--preset=")
    if name not in PRESETS:
        raise ConfigError(f"--preset: {name!r} is not known; use one of {', '.join(PRESETS)}")
    return PRESETS[name].config


def _networks_of(config: TrainConfig, init: Path) -> TrainConfig:
    from progan.state import load_network

    g, _ = load_network(init / "g.safetensors", "generator")
    d, _ = load_network(init / "d.safetensors", "discriminator")
    return replace(config, g=g.config, d=d.config)


def _nimg(name: str, kimg: float) -> int:
    nimg = round(kimg * 1000)
    if nimg < 0:
        raise ConfigError(f"{name}: {kimg} is not allowed; use 0 or more thousand images")
    return nimg


def _per_resolution(name: str, text: str, kind: type) -> dict[int, Any]:
    try:
        return parse_per_resolution(text, kind)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _command() -> str:
    return shlex.join(["progan", *sys.argv[1:]])


def _console() -> Any:
    from rich.console import Console

    return Console()


def run() -> None:
    """The console command."""
    # SIGTERM unwinds as Ctrl-C does, so that half-written data is cleared away; training handles both itself.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    sys.exit(main())
