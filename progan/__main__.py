"""The console command, also as `python -m progan`. Worker processes read this file too: it imports nearly nothing."""

import os
import signal
import sys


def main() -> None:
    """Run what the command line says and exit with its code."""
    from progan import cli

    # SIGTERM unwinds as Ctrl-C does, so that half-written data is cleared away; training handles both itself.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    try:
        try:
            code = cli.main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has gone, as `head` does when it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the very end
        code = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:  # threads of the process group that outlive Python may abort the process
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
