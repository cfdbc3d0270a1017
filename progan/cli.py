"""`progan ...`: parse, call, print. Heavy imports wait until a command needs them, so that --help is quick."""

import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro
from tyro.conf import subcommand

from progan.commands.ablate import Ablate
from progan.commands.cifar10 import Cifar10
from progan.commands.data import Data
from progan.commands.evaluate import Evaluate
from progan.commands.generate import Generate
from progan.commands.modes import Modes
from progan.commands.snapshot import Import
from progan.commands.train import Train, preset_config
from progan.errors import Stopped, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user's mistake, 128 + signal when stopped."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        command = tyro.cli(
            Annotated[Train, subcommand(name="train", default=Train(config=preset_config(argv)))]
            | Annotated[Generate, subcommand(name="generate")]
            | Annotated[Evaluate, subcommand(name="evaluate")]
            | Annotated[Data, subcommand(name="data")]
            | Annotated[Ablate, subcommand(name="ablate")]
            | Annotated[Cifar10, subcommand(name="cifar10")]
            | Annotated[Modes, subcommand(name="modes")]
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
    except Stopped as stop:
        return 128 + stop.signum
    return 0


def run() -> None:
    """The console command."""
    # SIGTERM unwinds as Ctrl-C does, so that half-written data is cleared away; training handles both itself.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    sys.exit(main())
