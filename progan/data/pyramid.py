"""The data store: every image at every resolution, as memory-mapped arrays in one folder.

A data set holds `images-{r}x{r}.npy` (uint8 [N, C, r, r]) for the full resolution and every halving down to 4x4,
`labels.npy` (int64 class index [N]) when it has labels, and `dataset.json`, which is written last. While training
nothing is decoded and no worker process runs: the operating system's page cache is the cache.
"""

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

from progan.data.manifest import (
    AGAIN,
    FORMAT,
    MANIFEST,
    VERSION,
    dataset_hash,
    images_name,
    layout,
    pyramid_resolutions,
    read_manifest,
)
from progan.errors import DataError, UserError
from progan.files import disk_reason, sync_folder, write_json

HEADER_BYTES = 128  # of every .npy file here: version 1.0, padded so that the count can be filled in at the end


def box_pyramid(image: np.ndarray) -> dict[int, np.ndarray]:
    """The image at every resolution down to 4x4, by the paper's data pyramid: 2x2 means of 2x2 means.

    image: uint8 [C, R, R], R a power of two of at least 4. Returns {r: uint8 [C, r, r]}, the image itself at R.
    The chain stays in float32, where it is exact; only what is stored is rounded, half to even.
    """
    levels = {image.shape[-1]: image}
    chain = image.astype(np.float32)
    for resolution in reversed(pyramid_resolutions(image.shape[-1])[:-1]):
        rows = chain[:, 0::2] + chain[:, 1::2]  # [C, r, 2r]
        chain = (rows[:, :, 0::2] + rows[:, :, 1::2]) * np.float32(0.25)  # [C, r, r]
        levels[resolution] = np.rint(chain).clip(0, 255).astype(np.uint8)
    return levels


class ImagePyramid:
    """A data set on disk, opened for reading.

    `count` images of `channels` x `resolution` x `resolution`; `resolutions` ascending from 4; `label_names` is
    None without labels; `hash` names the content (not the place or the time); `manifest` is `dataset.json`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], images: dict[int, np.ndarray], labels: np.ndarray | None):
        self.path = path
        self.manifest = manifest
        self.count: int = manifest["count"]
        self.channels: int = manifest["channels"]
        self.resolution: int = manifest["resolution"]
        self.resolutions: list[int] = sorted(images)
        self.label_names: list[str] | None = manifest["label_names"]
        self.hash: str = manifest["hash"]
        self._images: dict[int, np.ndarray] = images
        self._labels = labels

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Map a data set into memory; cheap, since no pixel is read.

        Raises DataError when `path` is missing, no data set, half-written, of a newer format, or when a file is
        missing or differs in size, shape or type from what `dataset.json` says.
        """
        root = Path(path)
        manifest = read_manifest(root)
        files = {entry["name"]: entry for entry in manifest["files"]}
        arrays = {name: _map_array(root / name, files[name]) for name in layout(manifest)}
        images = {r: arrays[images_name(r)] for r in pyramid_resolutions(manifest["resolution"])}
        labels = arrays.get("labels.npy")
        if labels is not None and not 0 <= labels.min() <= labels.max() < len(manifest["label_names"]):
            raise DataError(f"{root / 'labels.npy'}: a label is outside 0..{len(manifest['label_names']) - 1}; {AGAIN}")
        return cls(root, manifest, images, labels)

    def __len__(self) -> int:
        return self.count

    @property
    def label_dim(self) -> int:
        """How many classes there are; 0 without labels."""
        return len(self.label_names or ())

    def read(self, indices: np.ndarray, resolution: int) -> np.ndarray:
        """Copy the images `indices` (int64 [n], 0 <= index < count) at `resolution`: uint8 [n, C, r, r]."""
        if resolution not in self._images:
            raise DataError(f"{self.path}: has no resolution {resolution}; it holds {self.resolutions}")
        images: np.ndarray = self._images[resolution][np.asarray(indices)]
        return images

    def read_labels(self, indices: np.ndarray) -> np.ndarray:
        """One-hot labels of the images `indices` (int64 [n]): float32 [n, label_dim]."""
        if self._labels is None:
            return np.zeros((len(indices), 0), np.float32)
        one_hot: np.ndarray = np.eye(self.label_dim, dtype=np.float32)[self._labels[np.asarray(indices)]]
        return one_hot

    def label_counts(self) -> list[int]:
        """How many images each label has, in the order of `label_names`."""
        return [] if self._labels is None else np.bincount(self._labels, minlength=self.label_dim).tolist()

    def verify(self) -> None:
        """Read every byte and compare with the checksums; raises DataError naming the first file that differs."""
        for entry in self.manifest["files"]:
            path = self.path / entry["name"]
            _map_array(path, entry)
            with path.open("rb") as file:
                file.seek(HEADER_BYTES)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != entry["data_sha256"]:
                raise DataError(f"{path}: its content is not what was written (sha256 differs); {AGAIN}")


class PyramidWriter:
    """Writes a data set whole or not at all: `with PyramidWriter(...) as writer: writer.append(levels)`.

    Everything goes to a folder beside `out` that is moved into place when it is complete and on disk. On any
    exception it is removed; after a kill it stays behind without `dataset.json`, so it cannot be taken for a data
    set. `source` and `attribution` go to `dataset.json` as they are when the block ends.

    Raises DataError for a resolution that is no power of two, an `out` that holds files, a full or read-only disk,
    and a block that ends without a single image.
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
    ):
        self.out = Path(out)
        self.count = 0
        self.source = source
        self._facts: dict[str, Any] = {"channels": channels, "resolution": resolution, "label_names": label_names}
        self._credits = {"attribution": attribution, "command": command}
        self._resolutions = pyramid_resolutions(resolution)
        self._folder = self.out.with_name(f"{self.out.name}.partial-{secrets.token_hex(4)}")
        self._files: dict[str, _GrowingArray] = {}

    def __enter__(self) -> Self:
        if self.out.exists() and not self.out.is_dir():
            raise DataError(f"{self.out}: is a file; choose another folder for the data set")
        if self.out.is_dir() and any(self.out.iterdir()):
            raise DataError(f"{self.out}: already holds files; delete it or choose another folder")
        try:
            with _disk_errors(self.out):
                self.out.parent.mkdir(parents=True, exist_ok=True)
                self._folder.mkdir()
                for name, (dtype, shape) in layout({**self._facts, "count": 0}).items():
                    self._files[name] = _GrowingArray(self._folder / name, dtype, shape[1:])
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if self.count == 0:
            raise DataError(f"{self.out}: not a single image was given; nothing was written")
        with _disk_errors(self.out):
            files = [file.finish() for file in self._files.values()]
            write_json(
                self._folder / MANIFEST,
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
            if self.out.is_dir():
                self.out.rmdir()
            self._folder.rename(self.out)
            sync_folder(self.out.parent)

    def _discard(self) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class _GrowingArray:
    """A .npy file that grows row by row; until `finish` its header is blank, so nothing can read it."""

    def __init__(self, path: Path, dtype: str, row_shape: tuple[int, ...]):
        self._name, self._dtype, self._row_shape, self._count = path.name, np.dtype(dtype), row_shape, 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb")
        self._file.write(bytes(HEADER_BYTES))

    def append(self, row: np.ndarray) -> None:
        if row.shape != self._row_shape or row.dtype != self._dtype:
            raise DataError(
                f"{self._name}: takes {self._dtype} {list(self._row_shape)}, got {row.dtype} {list(row.shape)}"
            )
        data = row.tobytes()
        self._digest.update(data)
        self._file.write(data)
        self._count += 1

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


def _map_array(path: Path, entry: dict[str, Any]) -> np.ndarray:
    """Map one file, once its size and header are what the manifest says."""
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise DataError(f"{path}: {size:,} bytes, but {MANIFEST} says {entry['bytes']:,}; {AGAIN}")
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise DataError(f"{path}: {reason}; {AGAIN}") from error
    if array.dtype.name != entry["dtype"] or list(array.shape) != entry["shape"]:
        raise DataError(
            f"{path}: {array.dtype.name} {list(array.shape)}, but {MANIFEST} says {entry['dtype']} "
            f"{entry['shape']}; {AGAIN}"
        )
    return array


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
