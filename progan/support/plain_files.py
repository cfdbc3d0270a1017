"""The gate for files that others wrote: plain ones of a bounded size, never waited for."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

CONFIG_BYTES = 2**24  # of a configuration or a study; a large one has 10 kB
LIST_BYTES = 2**27  # of a manifest, a list of labels or a run's lines; a million labelled pictures take 40 MB
MOST_PADDING = 2**20  # zeros behind a file's end
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_plain(path: Path, most: int | None = None) -> None:
    """Raise OSError, its `strerror` saying why, unless there is a plain file of at most `most` bytes at `path`."""
    _check(os.stat(path), path, most)  # before it is opened, for opening alone moves a tape


def open_plain(path: Path, most: int | None = None) -> BufferedReader:
    """Open a file for reading. Raises OSError as `check_plain` does; a pipe without a writer is not waited for."""
    check_plain(path, most)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(os.fstat(handle), path, most)  # once more: another may have taken its place
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_plain(path: Path, most: int) -> bytes:
    """The content of a file. Raises OSError as `check_plain` does, also when it is longer than it said."""
    with open_plain(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise _too_large(path, most)
    return content


def check_tail(file: BufferedReader) -> None:
    """Raise OSError when the last MiB is nothing but zeros: of a download that had its room reserved and ended early.

    file: packed, so that its content cannot be such zeros; it is read from its start on afterwards.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - MOST_PADDING))
    if size > MOST_PADDING and not any(file.read()):
        raise OSError(errno.EINVAL, "it ends in zeros, so it was never whole", file.name)
    file.seek(0)


def _check(status: os.stat_result, path: Path, most: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, no plain file", str(path))
    if most is not None and status.st_size > most:
        raise _too_large(path, most)


def _too_large(path: Path, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
