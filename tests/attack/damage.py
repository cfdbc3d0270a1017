"""What the attack does to files, and what every answer must keep to."""

import faulthandler
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from progan.support.errors import UserError

SECONDS = 20
BYTES = 2**30  # of memory, beyond what is taken before
NONSENSE = (b"", b"[]", b"null", b"7", b"{}", b'"\\ud800"', b"\xff", b"[" * 100_000, b'{"a":' * 100_000)
STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 7, 0.5, 2**31, 2**64, 10**30, float("inf"), float("nan")),
    *("", "x", "../../etc/passwd", "\x1b]52;c;cm0gLXJm\x07", "[/]", "\u202e", "\ud800", "a\nb\0c", "long" * 5000),
    *([], {}, [None], [[[]]], {"": {}}, [0] * 5000),
)


def damaged(whole: bytes, seed: int, count: int = 25) -> Iterator[bytes]:
    """Flipped bits, cut ends, swapped and repeated pieces, other bytes at the start, other JSON in place of a number;
    `count` of each way, and contents that are nothing at all."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        yield bytes(flipped)
        yield whole[: rng.integers(len(whole))]
        a, b = sorted(rng.integers(len(whole), size=2))
        yield whole[:a] + whole[b:]
        yield whole[:b] + whole[a:]
        head = bytearray(whole)
        head[rng.integers(min(len(whole), 600))] = rng.integers(256)
        yield bytes(head)
        digits = [i for i, byte in enumerate(whole[:2000]) if byte in b"0123456789"]
        if digits:
            place = int(rng.choice(digits))
            other = (b"null", b"[]", b'"x"', b"1e999", b"9" * 30, b"-1", b"{}")[rng.integers(7)]
            yield whole[:place] + other + whole[place + 1 :]
    yield from NONSENSE


def strange_json(whole: bytes, seed: int, count: int = 100) -> Iterator[bytes]:
    """A JSON text, or the first line of several, with a value or the name of a field replaced or left out."""
    rng = np.random.default_rng(seed)
    first, *others = whole.splitlines(keepends=True) if b"}\n{" in whole else [whole]
    for _ in range(count):
        value = json.loads(first)
        places = list(_places(value))
        inside, key = places[rng.integers(len(places))]
        match rng.integers(8):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[f"{key}\x1b[2J"] = inside.pop(key)
            case _:
                inside[key] = STRANGE[rng.integers(len(STRANGE))]
        text = json.dumps(value, ensure_ascii=bool(rng.integers(2)))
        yield b"".join([text.encode("utf-8", "surrogatepass"), b"\n", *others])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in pairs:
        yield value, key
        yield from _places(inside)


def answer(read: Callable[[], object], folder: Path) -> tuple[bool, object]:
    """Whether a file was accepted, and what was read, or the sentence of the refusal.

    Whatever the file, there is one printable sentence, a bound of time and memory, and nothing new in the folder.
    """
    before = listing(folder)
    try:
        with bounded():
            return True, read()
    except UserError as error:
        sentence(str(error))
        assert listing(folder) == before, "something was left behind"
        return False, str(error)


def sentence(text: str) -> None:
    """One printable sentence; only a list of bad pictures may follow it, indented."""
    first, *rest = text.split("\n")
    assert 0 < len(first) < 1000, text
    assert all(line.isprintable() for line in (first, *rest)), text
    assert all(line.startswith("  ") for line in rest), text


def listing(folder: Path) -> list[str]:
    """Every file and folder below a folder."""
    return sorted(os.path.join(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files))


class TooLong(BaseException):
    """No Exception, for those are caught by readers of damaged files."""


@contextmanager
def bounded() -> Iterator[None]:
    """Fails the test when what happens inside takes more than SECONDS or BYTES; only Linux can be asked for both.

    What hangs in a library, where no signal reaches Python, ends the whole process, with a traceback.
    """

    def end(signum: int, frame: object) -> None:
        raise TooLong(f"over {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True, file=sys.__stderr__)
    start = _memory("VmRSS", reset=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
        grown = _memory("VmHWM") - start
        assert grown < BYTES, f"took {grown:,} bytes of memory"


def _memory(field: str, *, reset: bool = False) -> int:
    """Bytes of memory of this process: VmRSS now, VmHWM the most since it was reset."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
