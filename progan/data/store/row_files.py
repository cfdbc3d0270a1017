"""The files of a data set while it is being written, row by row, by one process or by several."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from progan.data.source import BadImage, Levels, Made
from progan.data.store.pyramid import HEADER_BYTES, row_bytes, row_digest
from progan.support.errors import DataError, UserError
from progan.support.files import disk_reason

LARGE_ROW = 2**19  # bytes from which on a row does not wait for the system to write it to the disk
ROWS_ON_THE_WAY = 4


@dataclass(frozen=True)
class RowFiles:
    """The image files of a `PyramidWriter`, for worker processes; files: resolution -> path and shape of a row."""

    out: Path
    files: dict[int, tuple[Path, tuple[int, int, int]]]

    def write(self, row: int, levels: Levels) -> dict[int, bytes]:
        """Write one image to `row` of every file and return its checksums, one for each resolution.

        Raises DataError for wrong levels and a full disk.
        """
        wanted = {r: shape for r, (_, shape) in self.files.items()}
        found = {r: image.shape for r, image in levels.items() if image.dtype == np.uint8}
        if found != wanted:
            raise DataError(f"{self.out}: needs levels {wanted}, got {found}")
        with disk_errors(self.out):
            for r, image in levels.items():
                file, write_behind = _open_raw(self.files[r][0])
                start = HEADER_BYTES + row * image.nbytes
                file.seek(start)
                _write_all(file, row_bytes(image))
                write_behind.wrote(start, image.nbytes)
        return {r: row_digest(image) for r, image in levels.items()}


def make_image(
    place: tuple[int, Any], *, levels: Callable[[Any], Levels | Made | BadImage], rows: RowFiles | None
) -> tuple[Made | BadImage, dict[int, bytes]]:
    """Make one image; with `rows`, write it to its row, and return its checksums in place of its pixels."""
    row, job = place
    result = levels(job)
    made = Made(result, {}) if isinstance(result, dict) else result
    if rows is None or isinstance(made, BadImage):
        return made, {}
    return Made({}, made.counts), rows.write(row, made.levels)


class GrowingArray:
    """A .npy file that grows row by row; until `finish` its header is blank, so nothing can read it."""

    def __init__(self, path: Path, dtype: str, row_shape: tuple[int, ...]):
        self._path, self._dtype, self._row_shape, self._count = path, np.dtype(dtype), row_shape, 0
        self._row_bytes = self._dtype.itemsize * int(np.prod(row_shape))
        self._digest = hashlib.sha256()
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.write(bytes(HEADER_BYTES))
        self._write_behind = _WriteBehind(self._file.fileno())

    @property
    def rows(self) -> int:
        """Whole rows in the file, those of other processes too."""
        return max(0, self._file.seek(0, os.SEEK_END) - HEADER_BYTES) // self._row_bytes

    def cut(self, count: int) -> None:
        """Keep the first `count` rows of an earlier process and go on behind them."""
        self._file.truncate(HEADER_BYTES + count * self._row_bytes)
        self._file.seek(HEADER_BYTES)
        for _ in range(count):
            self._digest.update(hashlib.sha256(self._file.read(self._row_bytes)).digest())
        self._count = count

    def append(self, row: np.ndarray) -> None:
        if row.shape != self._row_shape or row.dtype != self._dtype:
            raise DataError(
                f"{self._path.name}: takes {self._dtype} {list(self._row_shape)}, got {row.dtype} {list(row.shape)}"
            )
        self._file.write(row_bytes(row))
        self._write_behind.wrote(HEADER_BYTES + self._count * self._row_bytes, self._row_bytes)
        self._digest.update(row_digest(row))
        self._count += 1

    def adopt(self, row: int, digest: bytes) -> None:
        """Take over a row that another process wrote, at or behind the end of those that were added."""
        if row != self._count:
            with self._path.open("r+b", buffering=0) as file:
                file.seek(HEADER_BYTES + row * self._row_bytes)
                data = file.read(self._row_bytes)
                file.seek(HEADER_BYTES + self._count * self._row_bytes)
                _write_all(file, memoryview(data))
        self._digest.update(digest)
        self._count += 1

    def flush(self) -> None:
        """Let the rows survive a kill of the process."""
        self._file.flush()

    def finish(self) -> dict[str, Any]:
        """Write the header, force everything to the disk and return the file's entry for the manifest."""
        shape = (self._count, *self._row_shape)
        size = HEADER_BYTES + self._count * self._row_bytes
        self._file.truncate(size)  # rows of bad images may be left behind the end
        self._file.seek(0)
        self._file.write(_npy_header(self._dtype, shape))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {
            "name": self._path.name,
            "bytes": size,
            "dtype": self._dtype.name,
            "shape": list(shape),
            "rows_sha256": self._digest.hexdigest(),
        }

    def close(self) -> None:
        with suppress(OSError):  # closing flushes, and the disk may be full
            self._file.close()


class _WriteBehind:
    """Has large rows written to the disk at once, and lets them leave the memory when they have been.

    Otherwise the system collects gigabytes, which the end must wait for, and takes new memory for every row. A page
    that a row shares with another stays, so that none must be read back for the next row.
    """

    def __init__(self, file: int):
        self._file = file
        self._rows: deque[tuple[int, int]] = deque()

    def wrote(self, start: int, size: int) -> None:
        if size < LARGE_ROW or not hasattr(os, "posix_fadvise"):
            return
        self._rows.append((start, size))
        self._not_needed(start, size)  # begins to write it; what has not been written stays
        if len(self._rows) > ROWS_ON_THE_WAY:
            self._not_needed(*self._rows.popleft())

    def _not_needed(self, start: int, size: int) -> None:
        with suppress(OSError):  # it is advice
            os.posix_fadvise(self._file, start, size, os.POSIX_FADV_DONTNEED)


@lru_cache(maxsize=16)
def _open_raw(path: Path) -> tuple[FileIO, _WriteBehind]:
    """One handle in each worker process, without a buffer, since several processes write to the file."""
    file = path.open("r+b", buffering=0)
    return file, _WriteBehind(file.fileno())


def _write_all(file: FileIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The .npy format 1.0: magic, version, header length, then a dict literal padded with spaces to a newline."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}"
    length = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """What the disk refuses becomes one sentence."""
    try:
        yield
    except DataError:
        raise
    except (OSError, UserError) as error:
        reason = disk_reason(error) or error
        raise DataError(f"{out}: cannot be written ({reason}); free some space or choose another folder") from error
