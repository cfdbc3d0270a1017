"""Write a data set whole or not at all."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from progan.data.source import Levels
from progan.data.store.journal import JOURNAL, Journal
from progan.data.store.manifest import FORMAT, MANIFEST, VERSION, dataset_hash, images_name, layout, pyramid_resolutions
from progan.data.store.partial import Partial, remove
from progan.data.store.row_files import GrowingArray, RowFiles, disk_errors
from progan.support.errors import DataError
from progan.support.files import sync_folder, write_json


class PyramidWriter:
    """Writes a data set whole or not at all: `with PyramidWriter(...) as writer: writer.append(levels)`.

    Everything goes to a folder beside `out` that is moved into place when it is complete and on disk. On any
    exception it is removed; after a kill it stays behind without `dataset.json`, so it cannot be taken for a data
    set. `source` and `attribution` go to `dataset.json` as they are when the block ends.

    identity: says what is being made, in JSON; what was written is then kept on exceptions and kills, in the folder
    `<out>.partial`, and the next writer of the same identity goes on: `records` are those that `note` was given.

    Raises DataError for a resolution that is no power of two, an `out` that holds files, a full or read-only disk,
    a block that ends without a single image, and a kept folder of another identity or that another process is at.
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
        self._partial: Partial | None = None
        self._files: dict[str, GrowingArray] = {}

    @property
    def folder(self) -> Path:
        """Where the data set grows, inside the block."""
        assert self._partial is not None
        return self._partial.path

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
            with disk_errors(self.out):
                self.out.parent.mkdir(parents=True, exist_ok=True)
                self._partial = Partial(self.out, kept=self.keep)
                if self._identity is not None:
                    self._journal = Journal(self.folder, self._identity)
                for name, (dtype, shape) in layout({**self._facts, "count": 0}).items():
                    self._files[name] = GrowingArray(self.folder / name, dtype, shape[1:])
                if self._journal is not None:
                    self._go_on(self._journal)
        except BaseException:
            self._discard()
            raise
        return self

    def append(self, levels: Levels, label: int | None = None) -> None:
        """Add one image: {r: uint8 [C, r, r]} for every resolution, as `box_pyramid` makes it, and its class index."""
        if sorted(levels) != self._resolutions:
            raise DataError(f"{self.out}: needs levels {self._resolutions}, got {sorted(levels)}")
        with disk_errors(self.out):
            for resolution, image in levels.items():
                self._files[images_name(resolution)].append(image)
            self._add_label(label)

    def rows(self) -> "RowFiles":
        """For other processes that write images by themselves, from row `count` on, which `adopt` then takes over."""
        shapes = {r: (self._facts["channels"], r, r) for r in self._resolutions}
        return RowFiles(self.out, {r: (self.folder / images_name(r), shape) for r, shape in shapes.items()})

    def adopt(self, row: int, digests: dict[int, bytes], label: int | None = None) -> None:
        """Add the image that `RowFiles.write` wrote to `row`, `count` or beyond, where bad images left a gap.

        digests: what it returned.
        """
        with disk_errors(self.out):
            for resolution, digest in digests.items():
                self._files[images_name(resolution)].adopt(row, digest)
            self._add_label(label)

    def note(self, record: dict[str, Any]) -> None:
        """Remember that a job is done, whether it gave an image or not; only with an identity."""
        assert self._journal is not None
        with disk_errors(self.out):
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

    def _add_label(self, label: int | None) -> None:
        names = self._facts["label_names"]
        if names is not None:
            if label is None or not 0 <= label < len(names):
                raise DataError(f"{self.out}: label {label} is outside 0..{len(names) - 1}")
            self._files["labels.npy"].append(np.array(label))
        self.count += 1

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
        with disk_errors(self.out):
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
        if self._partial is None:
            return
        if not self.keep or not (self.folder / JOURNAL).exists():
            remove(self.folder)
        self._partial.close()
