"""Write a data set whole or not at all."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from progan.data.journal import JOURNAL, Journal
from progan.data.manifest import FORMAT, MANIFEST, VERSION, dataset_hash, images_name, layout, pyramid_resolutions
from progan.data.pyramid import HEADER_BYTES
from progan.errors import DataError, UserError
from progan.files import disk_reason, sync_folder, write_json


class PyramidWriter:
    """Writes a data set whole or not at all: `with PyramidWriter(...) as writer: writer.append(levels)`.

    Everything goes to a folder beside `out` that is moved into place when it is complete and on disk. On any
    exception it is removed; after a kill it stays behind without `dataset.json`, so it cannot be taken for a data
    set. `source` and `attribution` go to `dataset.json` as they are when the block ends.

    identity: says what is being made, in JSON; what was written is then kept on exceptions and kills, in the folder
    `<out>.partial`, and the next writer of the same identity goes on: `records` are those that `note` was given.

    Raises DataError for a resolution that is no power of two, an `out` that holds files, a full or read-only disk,
    a block that ends without a single image, and a kept folder of another identity.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        resolution: int,
        channels: int,
        source: dict[str, Any],
        command: str = "",
        label_names: list[str] | None = None,
        attribution: dict[str, str] | None = None,
        identity: dict[str, Any] | None = None,
    ):
        self.out = Path(out)
        self.count = 0
        self.source = source
        self.keep = identity is not None
        self._identity = identity
        self._journal: Journal | None = None
        self._facts: dict[str, Any] = {"channels": channels, "resolution": resolution, "label_names": label_names}
        self._credits = {"attribution": attribution, "command": command}
        self._resolutions = pyramid_resolutions(resolution)
        suffix = "" if self.keep else f"-{secrets.token_hex(4)}"
        self.folder = self.out.with_name(f"{self.out.name}.partial{suffix}")
        self._files: dict[str, _GrowingArray] = {}

    @property
    def records(self) -> list[dict[str, Any]]:
        """What `note` was given, now and before an interruption."""
        return self._journal.records if self._journal else []

    def __enter__(self) -> Self:
        if self.out.exists() and not self.out.is_dir():
            raise DataError(f"{self.out}: is a file; choose another folder for the data set")
        if self.out.is_dir() and any(self.out.iterdir()):
            raise DataError(f"{self.out}: already holds files; delete it or choose another folder")
        try:
            with _disk_errors(self.out):
                self.out.parent.mkdir(parents=True, exist_ok=True)
                self.folder.mkdir(exist_ok=self.keep)
                if self._identity is not None:
                    self._journal = Journal(self.folder, self._identity)
                for name, (dtype, shape) in layout({**self._facts, "count": 0}).items():
                    self._files[name] = _GrowingArray(self.folder / name, dtype, shape[1:])
                if self._journal is not None:
                    self._go_on(self._journal)
        except BaseException:
            self._discard()
            raise
        return self

    def append(self, levels: dict[int, np.ndarray], label: int | None = None) -> None:
        """Add one image: {r: uint8 [C, r, r]} for every resolution, as `box_pyramid` makes it, and its class index."""
        names = self._facts["label_names"]
        if sorted(levels) != self._resolutions:
            raise DataError(f"{self.out}: needs levels {self._resolutions}, got {sorted(levels)}")
        if names is not None and (label is None or not 0 <= label < len(names)):
            raise DataError(f"{self.out}: label {label} is outside 0..{len(names) - 1}")
        with _disk_errors(self.out):
            for resolution, image in levels.items():
                self._files[images_name(resolution)].append(image)
            if names is not None:
                self._files["labels.npy"].append(np.array(label))
        self.count += 1

    def note(self, record: dict[str, Any]) -> None:
        """Remember that a job is done, whether it gave an image or not; only with an identity."""
        assert self._journal is not None
        with _disk_errors(self.out):
            for file in self._files.values():
                file.flush()
            self._journal.append({**record, "images": self.count})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _go_on(self, journal: Journal) -> None:
        """Cut everything back to the last job that is whole in every file."""
        rows = min(file.rows for file in self._files.values())
        count = sum(record["images"] <= rows for record in journal.records)
        journal.begin(count)
        self.count = journal.records[-1]["images"] if journal.records else 0
        for file in self._files.values():
            file.cut(self.count)

    def _finish(self) -> None:
        if self.count == 0:
            self.keep = False
            raise DataError(f"{self.out}: not a single image was given; nothing was written")
        with _disk_errors(self.out):
            files = [file.finish() for file in self._files.values()]
            write_json(
                self.folder / MANIFEST,
                {
                    "format": FORMAT,
                    "version": VERSION,
                    "hash": dataset_hash(files),
                    "count": self.count,
                    **self._facts,
                    "source": self.source,
                    **self._credits,
                    "files": files,
                },
            )
            if self._journal is not None:
                self._journal.finish()
            if self.out.is_dir():
                self.out.rmdir()
            self.folder.rename(self.out)
            sync_folder(self.out.parent)

    def _discard(self) -> None:
        for file in self._files.values():
            file.close()
        if not self.keep or not (self.folder / JOURNAL).exists():
            shutil.rmtree(self.folder, ignore_errors=True)


class _GrowingArray:
    """A .npy file that grows row by row; until `finish` its header is blank, so nothing can read it."""

    def __init__(self, path: Path, dtype: str, row_shape: tuple[int, ...]):
        self._name, self._dtype, self._row_shape, self._count = path.name, np.dtype(dtype), row_shape, 0
        self._row_bytes = self._dtype.itemsize * int(np.prod(row_shape))
        self._digest = hashlib.sha256()
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.write(bytes(HEADER_BYTES))

    @property
    def rows(self) -> int:
        """Whole rows in the file, those of an earlier process too."""
        return max(0, self._file.seek(0, os.SEEK_END) - HEADER_BYTES) // self._row_bytes

    def cut(self, count: int) -> None:
        """Keep the first `count` rows of an earlier process and go on behind them."""
        self._file.truncate(HEADER_BYTES + count * self._row_bytes)
        self._file.seek(HEADER_BYTES)
        while data := self._file.read(2**20):
            self._digest.update(data)
        self._count = count

    def append(self, row: np.ndarray) -> None:
        if row.shape != self._row_shape or row.dtype != self._dtype:
            raise DataError(
                f"{self._name}: takes {self._dtype} {list(self._row_shape)}, got {row.dtype} {list(row.shape)}"
            )
        data = row.tobytes()
        self._digest.update(data)
        self._file.write(data)
        self._count += 1

    def flush(self) -> None:
        """Let the row survive a kill of the process."""
        self._file.flush()

    def finish(self) -> dict[str, Any]:
        """Write the header, force everything to the disk and return the file's entry for the manifest."""
        shape = (self._count, *self._row_shape)
        size = self._file.tell()
        self._file.seek(0)
        self._file.write(_npy_header(self._dtype, shape))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {
            "name": self._name,
            "bytes": size,
            "dtype": self._dtype.name,
            "shape": list(shape),
            "data_sha256": self._digest.hexdigest(),
        }

    def close(self) -> None:
        with suppress(OSError):  # closing flushes, and the disk may be full
            self._file.close()


def _npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The .npy format 1.0: magic, version, header length, then a dict literal padded with spaces to a newline."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}"
    length = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """What the disk refuses becomes one sentence."""
    try:
        yield
    except DataError:
        raise
    except (OSError, UserError) as error:
        reason = disk_reason(error) or error
        raise DataError(f"{out}: cannot be written ({reason}); free some space or choose another folder") from error
