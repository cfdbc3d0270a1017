"""The console command, also as `python -m progan`. Worker processes read this file too: it imports nearly nothing."""

import os
import signal
import sys

NARROWEST = 40  # columns


def main() -> None:
    """Run what the command line says and exit with its code."""
    # SIGTERM unwinds as Ctrl-C does, so that half-written data is cleared away; training handles both itself.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    code = 1
    try:
        _usable_output()
        try:
            from progan import cli

            code = cli.main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:  # before the command began, or a second one
        code = 130
    except OSError as error:
        if error.filename is not None:  # not of the output
            raise
        if not isinstance(error, BrokenPipeError):  # that is a reader who has enough, as `head`
            print(f"progan: the output cannot be written ({error.strerror})", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the very end
        code = 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # nothing is left to stop but the exit
    if "TORCHELASTIC_RUN_ID" in os.environ:  # threads of the process group that outlive Python may abort the process
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _usable_output() -> None:
    """Closed streams swallow, terminals of any encoding show every letter, and no line is narrower than a word."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


if __name__ == "__main__":
    main()
