"""The console command, also as `python -m progan`. Worker processes read this file too: it imports nearly nothing."""

import signal
import sys


def main() -> None:
    """Run what the command line says and exit with its code."""
    from progan import cli

    # SIGTERM unwinds as Ctrl-C does, so that half-written data is cleared away; training handles both itself.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
