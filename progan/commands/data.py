"""`progan data ...`."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg, subcommand

from progan.data.sources.faces import Faces
from progan.data.sources.folder import Folder


@dataclass(frozen=True)
class Create:
    """Make a data set."""

    source: Annotated[
        Annotated[Faces, subcommand(name="faces")] | Annotated[Folder, subcommand(name="folder")],
        arg(name=""),
    ]

    def run(self) -> None:
        from progan.data.create import create, describe

        Console().print(describe(create(self.source, command=shlex.join(["progan", *sys.argv[1:]]))))


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
