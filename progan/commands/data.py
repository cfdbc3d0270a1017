"""`progan data ...`."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg, subcommand


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
        Console().print(describe(made))


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
        Console().print(describe(made))


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
        Console().print(describe(pyramid))
        if self.verify:
            Console().print("every file matches the manifest")


@dataclass(frozen=True)
class Data:
    """Make and look at data sets."""

    action: Annotated[
        Annotated[Create, subcommand(name="create")] | Annotated[Info, subcommand(name="info")], arg(name="")
    ]

    def run(self) -> None:
        self.action.run()


def _command() -> str:
    return shlex.join(["progan", *sys.argv[1:]])
