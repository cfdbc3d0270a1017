"""Files that are written whole or not at all."""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from progan.support.errors import ConfigError, RunError, UserError, printable

try:
    import fcntl
except ImportError:  # Windows locks nothing here
    fcntl = None  # type: ignore[assignment]

HELD = (errno.EAGAIN, errno.EACCES)  # by another process; any other error says that locks are not to be had here


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    A reader sees the old file or the new one, never a part, also after a kill or a power cut.
    Raises UserError when the disk is full or the folder cannot be written; the old file stays.
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        reason = disk_reason(error)
        if reason is None:
            raise
        raise UserError(f"{path}: cannot be written ({reason}); free some space or choose another folder") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def check_free(field: str, *paths: Path) -> None:
    """Raise ConfigError when one of the paths is taken: no command writes over what it did not make, unasked."""
    for path in paths:
        if os.path.lexists(path):
            raise ConfigError(f"{field}: {path} is there already; choose another name, or pass --overwrite")


def make_folder(field: str, folder: Path) -> None:
    """Make a folder and those above it; raises ConfigError naming the field that asked for it when that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{field}: {folder} cannot be made a folder ({error.strerror}); choose another") from None


@contextmanager
def folder_for(field: str, folder: Path) -> Iterator[None]:
    """A folder as `make_folder` makes it, that goes away again when what is to fill it fails before the first file."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(field, folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # something is in it
            for path in made:
                path.rmdir()
        raise


@contextmanager
def locked(folder: Path, worker: str) -> Iterator[None]:
    """Make a folder, and let no other process in meanwhile; worker: the command that is at work in it.

    Where files cannot be locked, as on some network drives, a line on stderr says so, and nothing is guarded. Raises
    RunError when another is at work, or when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); give --out another folder") from None
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in HELD:
                    raise RunError(f"{folder}: another {worker} is at work here; wait for it or stop it") from None
                from progan.support.terminal import say  # here, for worker processes need nothing of it

                what = f"{folder}: cannot be locked ({printable(error)}); start no other {worker} in it"
                say(f"progan: {what}", error=True)
        yield


def is_locked(folder: Path) -> bool | None:
    """Whether a process holds the lock of a folder, asked without taking it even for a moment.

    None where the system keeps no list of locks.
    """
    try:
        locks = Path("/proc/locks").read_text()
    except OSError:
        return None
    try:
        inode = (folder / ".lock").stat().st_ino
    except OSError:
        return False
    return any(line.split()[5].endswith(f":{inode}") for line in locks.splitlines() if " FLOCK " in line)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_reason(error: BaseException) -> str | None:
    """The system's own words if `error` came from the disk, else None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
