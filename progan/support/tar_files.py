"""Tar files read to their ends: what is cut off or damaged is never taken for the end."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from progan.support.errors import printable
from progan.support.plain_files import MOST_PADDING, check_tail, open_plain

BLOCK = 512  # bytes, of which an archive has a whole number; two blocks of zeros end it
PIECE = 2**20  # bytes that are read at once: the headers of no honest archive are longer
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


def tar_members(path: Path) -> Generator[tuple[tarfile.TarInfo, Any], None, None]:
    """Every member with its content, which is None but for plain files, in the archive's order, packed or not.

    Raises OSError, EOFError or tarfile.TarError when the archive is damaged or does not end as an archive does. The
    library takes a header with a wrong checksum for the end; here that is two blocks of zeros with nothing behind them.
    """
    with open_plain(path) as raw:
        start = raw.read(2)
        raw.seek(0)
        if start in _PACKED:
            check_tail(raw)
        unpacked = _PACKED[start](raw) if start in _PACKED else raw
        try:
            with tarfile.open(fileobj=_Pieces(unpacked), mode="r:") as tar:  # type: ignore[call-overload]
                for info in tar:
                    if info.size < 0 or tar.offset <= info.offset:
                        raise tarfile.ReadError(f"a member at byte {info.offset:,} has no size")
                    yield info, tar.extractfile(info) if info.isfile() else None
                end = tar.offset
            _check_end(unpacked, end)
        except (OSError, EOFError, tarfile.TarError):
            raise
        except Exception as error:  # every packing and every kind of header has its own
            raise tarfile.ReadError(printable(error)) from error


def read_content(file: BinaryIO) -> bytes:
    """All of a member, a piece at a time."""
    return b"".join(iter(partial(file.read, PIECE), b""))


def _check_end(file: BinaryIO, end: int) -> None:
    file.seek(end)
    size = 0
    if file.read(2 * BLOCK) != bytes(2 * BLOCK):
        raise tarfile.ReadError(f"it is damaged or cut off at byte {end:,}, where no member and no end is")
    while piece := file.read(PIECE):  # also to the end of what is packed, where its checksum is
        size += len(piece)
        if piece.count(0) != len(piece) or size > MOST_PADDING:
            raise tarfile.ReadError(f"more follows its end at byte {end:,}")
    if size % BLOCK:
        raise tarfile.ReadError("bytes are missing from it or were added, for it is no whole number of blocks")


class _Pieces:
    """A file of which only a piece is read at once, whatever a header claims."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._file = file.seek, file.tell, file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= PIECE:
            raise tarfile.ReadError(f"a header says that it has {size:,} bytes")
        return self._file.read(size)
