"""`progan ...`: parse, call, print. Heavy imports wait until a command needs them, so that --help is quick."""

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import Annotated, Protocol, get_args

import tyro
from tyro.conf import subcommand
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from progan.commands.ablate import Ablate
from progan.commands.cifar10 import Cifar10
from progan.commands.data import Data
from progan.commands.evaluate import Evaluate
from progan.commands.export import Export
from progan.commands.generate import Generate
from progan.commands.import_ import Import
from progan.commands.modes import Modes
from progan.commands.project import Project
from progan.commands.push import Push
from progan.commands.report import Report
from progan.commands.track import Track
from progan.commands.train import Train, given, preset_config
from progan.commands.video import Video
from progan.commands.view import View
from progan.support.config_io import FloatAt, IntAt, parse_per_resolution, print_per_resolution
from progan.support.errors import ConfigError, Stopped, UserError, printable
from progan.support.terminal import say

_registry = ConstructorRegistry()


class Command(Protocol):
    """A command with its options."""

    def run(self) -> None:
        """Do what it says, and print what came of it."""


@_registry.primitive_rule
def _per_resolution(field: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[dict[int, float]] | None:
    """How a flag gives a value for every resolution."""
    if field.type not in (IntAt, FloatAt):
        return None
    kind = get_args(field.type)[1]
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="N|RES:N,...",
        instance_from_str=lambda args: parse_per_resolution(args[0], kind),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [print_per_resolution(value)],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user's mistake, 128 + signal when stopped."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        _check_place()
        _parsed(argv).run()
    except UserError as error:
        say(f"progan: {error}", error=True)
        return 2
    except OSError as error:
        if error.filename is None:  # of the output
            raise
        sentence = UserError(f"{os.fspath(error.filename)}: cannot be used ({printable(error)})")
        say(f"progan: {sentence}", error=True)
        return 2
    except KeyboardInterrupt:
        say("progan: interrupted", error=True)
        return 130
    except Stopped as stop:
        return 128 + stop.signum
    return 0


def _check_place() -> None:
    """Raise UserError where the current folder is gone, without which some libraries end the process."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(f"the current folder cannot be found ({printable(error)}); change to another") from None


def _parsed(argv: list[str]) -> Command:
    """The command of these words. What cannot be one is said on standard error, cleaned, and ends with exit code 2."""
    if given(argv, "--out") == "":  # as a path it would be the current folder
        raise ConfigError("--out: '' is no name; give one, or . for the current folder")
    told, of_train = StringIO(), argv if argv[:1] == ["train"] else []
    try:
        with redirect_stderr(told):
            return tyro.cli(
                Annotated[Train, subcommand(name="train", default=Train(config=preset_config(of_train)))]
                | Annotated[Generate, subcommand(name="generate")]
                | Annotated[Project, subcommand(name="project")]
                | Annotated[Video, subcommand(name="video")]
                | Annotated[Evaluate, subcommand(name="evaluate")]
                | Annotated[Export, subcommand(name="export")]
                | Annotated[Push, subcommand(name="push")]
                | Annotated[View, subcommand(name="view")]
                | Annotated[Report, subcommand(name="report")]
                | Annotated[Track, subcommand(name="track")]
                | Annotated[Data, subcommand(name="data")]
                | Annotated[Ablate, subcommand(name="ablate")]
                | Annotated[Cifar10, subcommand(name="cifar10")]
                | Annotated[Modes, subcommand(name="modes")]
                | Annotated[Import, subcommand(name="import")],
                prog="progan",
                description="Progressive growing of GANs (Karras et al., ICLR 2018).",
                args=argv,
                registry=_registry,
            )
    except SystemExit:
        if told.getvalue():
            say(told.getvalue().rstrip("\n"), error=True)
        raise
