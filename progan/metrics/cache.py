"""Statistics of real images, kept between evaluations."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from progan.metrics.protocol import Statistics
from progan.support.errors import UserError
from progan.support.files import write_whole
from progan.support.plain_files import open_plain
from progan.support.processes import ALONE, Processes


def cache_folder() -> Path:
    """$PROGAN_CACHE, or progan/ in the user's cache folder. Everything in it can be deleted at any time."""
    if folder := os.environ.get("PROGAN_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "progan"


def cached(
    key: dict[str, Any], make: Callable[[], Statistics], folder: Path | None = None, processes: Processes = ALONE
) -> Statistics:
    """The statistics kept under `key`, or made now and kept.

    key: all that they depend on, as plain data. The file holds its key: one that was renamed, damaged or made for
    another key is made again. A disk that is full or read-only keeps nothing, and that is no error. processes: those
    that `make` needs at once, of which only the first reads, keeps and gets the statistics.
    """
    text = json.dumps(key, sort_keys=True)
    path = (folder or cache_folder()) / f"{key['metric']}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
    found = _read(path, text) if processes.rank == 0 else None
    if processes.first(lambda: found is not None):
        return found or {}
    made = make()
    if processes.rank:
        return made
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(_packed(text, made)))
    except (OSError, UserError):
        pass
    return made


def _read(path: Path, key: str) -> Statistics | None:
    try:
        with open_plain(path) as file, np.load(file, allow_pickle=False) as arrays:
            if arrays["key"].item() != key:
                return None
            found = {name: arrays[name] for name in arrays.files if name != "key"}
            return found if found and all(array.dtype.kind in "biuf" for array in found.values()) else None
    except Exception:  # whatever is in it, it is made again
        return None


def _packed(key: str, statistics: Statistics) -> bytes:
    """An .npz file at the fastest compression: histograms shrink to a quarter in a second each."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in {"key": np.array(key), **statistics}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return memory.getvalue()
