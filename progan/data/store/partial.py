"""What is being made stands beside its place until it is whole: held by one process, cleared when that is gone."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from progan.support.errors import DataError

try:
    import fcntl
except ImportError:  # Windows locks no folders, so nothing is cleared there
    fcntl = None  # type: ignore[assignment]


def kept_place(out: Path) -> Path:
    """Where a creation of `out` grows that can be gone on with; DataError where that is no new name, such as . or /."""
    if out.name in ("", ".."):
        raise DataError(f"--out: {str(out)!r} cannot be made; give the name of a new folder")
    return out.with_name(f"{out.name}.partial")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Let no other process at a file or folder meanwhile, where the system can; DataError when one is at work on it."""
    try:
        handle = _hold(path)
    except BlockingIOError:
        raise DataError(f"{path}: another progan is at work on it; wait for it or stop it") from None
    except OSError:  # this file system has no locks
        handle = None
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


class Partial:
    """A folder, or with `file` a file, beside `out`, for this process alone until `close`.

    path: `<out>.partial`, which may hold what was kept of before, or a new name of its own unless `kept`. What killed
    processes left of new names is removed first. Raises OSError where it cannot be made, and DataError when another
    process is at work on what was kept.
    """

    def __init__(self, out: Path, *, kept: bool = False, file: bool = False) -> None:
        whole = kept_place(out)
        _clear(out)
        self._handle: int | None = None
        while True:
            self.path = whole if kept else whole.with_name(f"{whole.name}-{secrets.token_hex(4)}")
            if file:
                self.path.open("xb").close()
            else:
                self.path.mkdir(exist_ok=kept)
            try:
                self._handle = _hold(self.path)
                if os.path.samestat(os.fstat(self._handle), os.stat(self.path)):
                    return
                self.close()  # the other process was done just now, or has just cleared it
            except BlockingIOError:
                if kept:
                    raise DataError(f"{self.path}: another progan is at work on it; wait for it or stop it") from None
            except FileNotFoundError:
                self.close()
            except OSError:  # this file system has no locks
                return

    def close(self) -> None:
        """Let others have it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, as far as that is possible."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _clear(out: Path) -> None:
    """Remove what processes that are gone were making of `out`."""
    beside = out.parent.iterdir() if out.parent.is_dir() else ()
    for path in [path for path in beside if re.fullmatch(re.escape(out.name) + r"\.partial-[0-9a-f]{8}", path.name)]:
        try:
            handle = _hold(path)
        except OSError:  # in use, or there is no telling
            continue
        try:
            remove(path)
        finally:
            os.close(handle)


def _hold(path: Path) -> int:
    """Lock a file or folder while the handle is open; BlockingIOError when another has it, OSError without locks."""
    if fcntl is None:
        raise OSError("this system locks no folders")
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle
