"""The console command, also as `python -m progan`. Worker processes read this file too: it imports nearly nothing."""

import io
import os
import signal
import sys
from types import FrameType
from typing import Any

NARROWEST = 40  # columns
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Run what the command line says and exit with its code."""
    code = 1
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before PyTorch: threads that wait leave their core to others
    try:
        try:
            _listen()
            _usable_output()
            code = _command()
        finally:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # nothing is left to stop but the exit
    except KeyboardInterrupt:
        code = 130
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # threads of the process group that outlive Python may abort the process
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _command() -> int:
    try:
        try:
            from progan import cli

            return cli.main()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # not of the output
            raise
        if not isinstance(error, BrokenPipeError):  # that is a reader who has enough, as `head`
            print(f"progan: the output cannot be written ({error.strerror})", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the very end
        return 1


def _listen() -> None:
    """Let SIGINT and SIGTERM unwind, so that half-written data is cleared away; training handles both itself.

    A second one ends the process at once, and so does one while a module is imported: imports swallow exceptions, and
    there is nothing to clear away yet.
    """
    heard: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        if heard or frame is not None:
            os._exit(128 + signum)
        heard.append(signum)
        raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as it is for SIGINT behind the shell's `&`
            signal.signal(number, stop)


def _usable_output() -> None:
    """Closed streams swallow, terminals of any encoding show every letter, and no line is narrower than a word.

    What stderr cannot take any more is dropped: the work goes on when its reader has gone or its disk is full.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")
    out: Any = sys.stderr.buffer
    dropping = io.BufferedWriter(_Dropping(getattr(out, "raw", out)))
    sys.stderr = io.TextIOWrapper(dropping, sys.stderr.encoding, "backslashreplace", line_buffering=True)
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


class _Dropping(io.RawIOBase):
    """Writes to another stream, and says that it has where that fails."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self.stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def write(self, data: Any) -> int:
        try:
            return self.stream.write(data) or len(data)
        except OSError:
            return len(data)


if __name__ == "__main__":
    main()
