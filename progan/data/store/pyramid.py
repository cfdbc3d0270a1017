"""The data store: every image at every resolution, as memory-mapped arrays in one folder.

A data set holds `images-{r}x{r}.npy` (uint8 [N, C, r, r]) for the full resolution and every halving down to 4x4,
`labels.npy` (int64 class index [N]) when it has labels, and `dataset.json`, which is written last. While training
nothing is decoded and no worker process runs: the operating system's page cache is the cache.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from progan.data.store.manifest import AGAIN, MANIFEST, images_name, layout, pyramid_resolutions, read_manifest
from progan.support.errors import DataError, printable
from progan.support.plain_files import check_plain, open_plain

HEADER_BYTES = 128  # of every .npy file here: version 1.0, padded so that the count can be filled in at the end


def box_pyramid(image: np.ndarray) -> dict[int, np.ndarray]:
    """The image at every resolution down to 4x4, by the paper's data pyramid: 2x2 means of 2x2 means.

    image: uint8 [C, R, R], R a power of two of at least 4. Returns {r: uint8 [C, r, r]}, the image itself at R.
    The chain is exact, in sums in place of means; only what is stored is rounded, half to even.
    """
    levels = {image.shape[-1]: image}
    sums, bits = image, 0  # a mean is a sum shifted by so many bits
    for resolution in reversed(pyramid_resolutions(image.shape[-1])[:-1]):
        bits += 2
        wide = np.uint16 if bits <= 8 else np.uint64  # 16 bits hold 256 pixels; the levels after those cost nothing
        rows = np.add(sums[:, 0::2], sums[:, 1::2], dtype=wide)  # [C, r, 2r]
        sums = rows[:, :, 0::2] + rows[:, :, 1::2]  # [C, r, r]
        # Half a unit less one, and that one where the mean's floor is odd, make the shift round, half to even.
        rounded = sums >> bits
        rounded &= 1
        rounded += sums
        rounded += (1 << (bits - 1)) - 1
        rounded >>= bits
        levels[resolution] = rounded.astype(np.uint8)
    return levels


class ImagePyramid:
    """A data set on disk, opened for reading.

    `count` images of `channels` x `resolution` x `resolution`; `resolutions` ascending from 4; `label_names` is
    None without labels; `hash` names the content (not the place or the time); `manifest` is `dataset.json`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], images: dict[int, "_Rows"], labels: "_Rows | None"):
        self.path = path
        self.manifest = manifest
        self.count: int = manifest["count"]
        self.channels: int = manifest["channels"]
        self.resolution: int = manifest["resolution"]
        self.resolutions: list[int] = sorted(images)
        self.label_names: list[str] | None = manifest["label_names"]
        self.hash: str = manifest["hash"]
        self._images = images
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
        rows = {name: _Rows(root / name, files[name]) for name in layout(manifest)}
        images = {r: rows[images_name(r)] for r in pyramid_resolutions(manifest["resolution"])}
        labels = rows.get("labels.npy")
        if labels is not None and not 0 <= labels.all.min() <= labels.all.max() < len(manifest["label_names"]):
            raise DataError(f"{root / 'labels.npy'}: a label is outside 0..{len(manifest['label_names']) - 1}; {AGAIN}")
        return cls(root, manifest, images, labels)

    def __len__(self) -> int:
        return self.count

    @property
    def about(self) -> dict[str, Any]:
        """What weights say of the data they learned from: hash, count, label_names, source in short, attribution."""
        short = {name: value for name, value in self.manifest["source"].items() if not isinstance(value, list | dict)}
        about = {name: self.manifest.get(name) for name in ("hash", "count", "label_names", "attribution")}
        return about | {"source": short}

    @property
    def label_dim(self) -> int:
        """How many classes there are; 0 without labels."""
        return len(self.label_names or ())

    def read(self, indices: np.ndarray, resolution: int) -> np.ndarray:
        """Copy the images `indices` (int64 [n], 0 <= index < count) at `resolution`: uint8 [n, C, r, r].

        Raises DataError when the data set has no such resolution, or its file was changed since it was opened.
        """
        if resolution not in self._images:
            raise DataError(f"{self.path}: has no resolution {resolution}; it holds {self.resolutions}")
        return self._images[resolution].read(indices)

    def stamp(self, resolution: int) -> tuple[int, int]:
        """Bytes and time of change (ns) that the file of this resolution had when it was opened."""
        return self._images[resolution].stamp

    def read_labels(self, indices: np.ndarray) -> np.ndarray:
        """One-hot labels of the images `indices` (int64 [n]): float32 [n, label_dim]."""
        if self._labels is None:
            return np.zeros((len(indices), 0), np.float32)
        one_hot = np.zeros((len(indices), self.label_dim), np.float32)
        one_hot[np.arange(len(indices)), self._labels.read(indices)] = 1
        return one_hot

    def label_counts(self) -> list[int]:
        """How many images each label has, in the order of `label_names`."""
        return [] if self._labels is None else np.bincount(self._labels.all, minlength=self.label_dim).tolist()

    def verify(self) -> None:
        """Read every byte and compare with the checksums; raises DataError naming the first file that differs."""
        for entry in self.manifest["files"]:
            path = self.path / entry["name"]
            digest = hashlib.sha256()
            for row in _Rows(path, entry).all:
                digest.update(row_digest(row))
            if digest.hexdigest() != entry["rows_sha256"]:
                raise DataError(f"{path}: its content is not what was written (sha256 differs); {AGAIN}")


def row_digest(row: np.ndarray) -> bytes:
    """The checksum of one image of one level, or of one label. That of a file is sha256 over those of its rows."""
    return hashlib.sha256(row_bytes(row)).digest()


def row_bytes(row: np.ndarray) -> memoryview:
    """The bytes of one image of one level, or of one label, without a copy if they lie in order."""
    return np.ascontiguousarray(row).data.cast("B")


def map_npy(path: Path) -> np.ndarray:
    """Map a .npy file into memory. Raises OSError where there is no plain file, and ValueError for a damaged one."""
    check_plain(path)
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # a damaged header raises almost anything
        raise ValueError(f"it is no whole .npy file: {printable(error)}") from error


class _Rows:
    """The rows of one file, mapped into memory, and read only as long as nobody writes to it.

    entry: what the manifest says of it. all: the array. The file stays open, so that a folder may be moved meanwhile.
    Raises DataError when size or header are not what the manifest says.
    """

    def __init__(self, path: Path, entry: dict[str, Any]):
        self.path = path
        try:
            self._file = open_plain(path)
            self.stamp = self._stamp()
            if self.stamp[0] != entry["bytes"]:
                raise DataError(f"{path}: {self.stamp[0]:,} bytes, but {MANIFEST} says {entry['bytes']:,}; {AGAIN}")
            shape, dtype = _npy_header(self._file)
            if dtype.name != entry["dtype"] or list(shape) != entry["shape"]:
                told = f"{entry['dtype']} {entry['shape']}"
                raise DataError(f"{path}: {dtype.name} {list(shape)}, but {MANIFEST} says {told}; {AGAIN}")
            self.all = np.asarray(np.memmap(self._file, dtype, "r", self._file.tell(), shape))
        except (OSError, ValueError) as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({printable(error)})"
            raise DataError(f"{path}: {reason}; {AGAIN}") from error

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Copy rows (int64 [n]); raises DataError when the file was written to since it was opened."""
        self._check()  # before, for pages behind the end of a file end the process
        rows: np.ndarray = self.all[np.asarray(indices)]
        self._check()
        return rows

    def _check(self) -> None:
        if self._stamp() != self.stamp:
            raise DataError(f"{self.path}: was changed while it was in use; {AGAIN}")

    def _stamp(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a .npy file, which is then at its first byte of data. Raises ValueError for a damaged one."""
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("of another version than 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # a damaged header raises almost anything
        raise ValueError(f"it is no whole .npy file: {printable(error)}") from error
    return shape, dtype
