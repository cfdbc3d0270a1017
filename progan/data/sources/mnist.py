"""MNIST and its kin: the publisher's IDX files, 28x28 gray, padded with black to 32x32."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

import numpy as np
from tyro.conf import Positional

from progan.data.source import ImageStream, Source
from progan.data.sources.arrays import RESOLUTION, ArraySource, labelled_stream
from progan.support.errors import DataError, printable
from progan.support.plain_files import check_tail, open_plain

Split = Literal["train", "test", "all"]

SIDE = 28
MARGIN = (RESOLUTION - SIDE) // 2
MOST_IMAGES = 2**20  # more than any file of this kind holds; a header may claim four thousand times as many

_PREFIXES: dict[Split, list[str]] = {"train": ["train"], "test": ["t10k"], "all": ["train", "t10k"]}
_PADDING = "2 black pixels on every side of 28x28"
_DIGITS = {
    "title": "MNIST",
    "creator": "Yann LeCun, Corinna Cortes, Christopher J. C. Burges",
    "source": "http://yann.lecun.com/exdb/mnist/",
}


@dataclass(frozen=True, kw_only=True)
class _IdxSource(ArraySource):
    src: Positional[Path]
    """Folder of the publisher's files."""
    split: Split = "train"
    """The publisher's training images, the test images, or both, training first."""

    kind: ClassVar[str]
    label_names: ClassVar[list[str]]
    attribution: ClassVar[dict[str, str]]

    def _open(self) -> ImageStream:
        """Raises DataError naming the file that is missing, damaged or not of this kind."""
        digits, labels = read_idx(self.src, self.split, self.attribution["source"])
        return labelled_stream(
            ((pad(digit[None]), int(label)) for digit, label in zip(digits, labels, strict=True)),
            len(digits),
            channels=1,
            label_names=self.label_names,
            facts={"kind": self.kind, "split": self.split, "padding": _PADDING},
            attribution=self.attribution,
            limit=self.images,
        )


@dataclass(frozen=True, kw_only=True)
class Mnist(_IdxSource):
    """MNIST: handwritten digits, gray, 60,000 to train and 10,000 to test, padded with black from 28x28 to 32x32.

    From yann.lecun.com/exdb/mnist, 12 MB in all: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz,
    t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz. Unpacked ones will do, and so will names like
    train-images.idx3-ubyte. The label is the digit.
    """

    kind = "mnist"
    label_names: ClassVar = [str(digit) for digit in range(10)]
    attribution: ClassVar = _DIGITS


@dataclass(frozen=True, kw_only=True)
class FashionMnist(_IdxSource):
    """Fashion-MNIST: clothes, gray, 60,000 to train and 10,000 to test, padded with black from 28x28 to 32x32.

    From github.com/zalandoresearch/fashion-mnist, 31 MB in all, under the same names as MNIST's files:
    train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz.
    On Debian and Ubuntu `apt install dataset-fashion-mnist` puts them into /usr/share/datasets/fashion-mnist.
    """

    kind = "fashion-mnist"
    label_names: ClassVar = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]
    attribution: ClassVar = {
        "title": "Fashion-MNIST",
        "creator": "Zalando SE",
        "source": "https://github.com/zalandoresearch/fashion-mnist",
        "licence": "MIT",
    }


@dataclass(frozen=True, kw_only=True)
class MnistRgb(Source):
    """Three random MNIST digits as red, green and blue of one picture: the 1,000 modes of the paper's MNIST test.

    Made of MNIST's own files (see `mnist`). The label is the number that the digits spell, red first: 000 to 999.
    Image i depends on the seed, i and the digits only, so a smaller data set is the start of a larger one.
    """

    src: Positional[Path]
    """Folder of MNIST's files."""
    split: Split = "train"
    """Where the digits come from: the publisher's training images, the test images, or both."""
    count: int = 1_000_000
    """Number of pictures; a million take 4.1 GB."""
    seed: int = 0
    """Which digits are put together."""

    def _open(self) -> ImageStream:
        """Raises DataError for what `Mnist` refuses, a count below 1 and a seed outside 0 .. 2^64 - 1."""
        if not 0 <= self.seed < 2**64:
            raise DataError(f"seed {self.seed} is outside 0 .. 2^64 - 1; choose another")
        digits, labels = read_idx(self.src, self.split, _DIGITS["source"])
        if self.count > MOST_IMAGES:
            raise DataError(f"--count: {self.count:,} is not allowed; use {MOST_IMAGES:,} or less")
        return labelled_stream(
            _stacks(digits, labels, self.seed),
            self.count,
            channels=3,
            label_names=[f"{number:03}" for number in range(1000)],
            facts={"kind": "mnist-rgb", "split": self.split, "seed": self.seed, "padding": _PADDING},
            attribution=_DIGITS,
        )


def read_idx(src: Path, split: Split, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (uint8 [N, 28, 28]) and labels (uint8 [N], 0..9) of a folder of MNIST's four files, gzipped or not.

    Raises DataError naming what is missing, which is to be had at `source`, or the file that is damaged, of another
    kind, or does not fit its partner.
    """
    if not src.is_dir():
        what = "is a file" if src.exists() else "no such folder"
        raise DataError(f"{src}: {what}; pass the folder that holds {_PREFIXES[split][0]}-images-idx3-ubyte.gz")
    stems = [f"{prefix}-{part}" for prefix in _PREFIXES[split] for part in ("images-idx3", "labels-idx1")]
    paths = [_find(src, stem) for stem in stems]
    missing = [f"{stem}-ubyte.gz" for stem, path in zip(stems, paths, strict=True) if path is None]
    if missing:
        raise DataError(f"{src}: lacks {', '.join(missing)}; download them from {source}")
    found = [path for path in paths if path is not None]
    pairs = [_read_pair(*pair) for pair in zip(found[0::2], found[1::2], strict=True)]
    images, labels = zip(*pairs, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def pad(images: np.ndarray) -> np.ndarray:
    """uint8 [C, 28, 28] -> [C, 32, 32] with 2 black pixels on every side, as the official tool does."""
    padded = np.zeros((len(images), RESOLUTION, RESOLUTION), np.uint8)
    padded[:, MARGIN:-MARGIN, MARGIN:-MARGIN] = images
    return padded


def _stacks(digits: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, int]]:
    # Philox makes four words at a time from its key and a counter: image i has the block of counter i to itself.
    random = np.random.Philox(key=seed)
    while True:
        picked = random.random_raw(4)[:3] % len(digits)
        red, green, blue = labels[picked].tolist()
        yield pad(digits[picked]), 100 * red + 10 * green + blue


def _find(src: Path, stem: str) -> Path | None:
    names = (
        f"{name}{end}" for name in (f"{stem}-ubyte", f"{stem.replace('-idx', '.idx')}-ubyte") for end in ("", ".gz")
    )
    return next((src / name for name in names if (src / name).exists()), None)


def _read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    images = _read_file(images_path, "images", (SIDE, SIDE))
    labels = _read_file(labels_path, "labels", ())
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels):,} labels for the {len(images):,} images of {images_path.name}; "
            "download both again"
        )
    if labels.max() > 9:
        raise DataError(f"{labels_path}: label {labels.max()} is outside 0..9; only sets of ten classes can be read")
    return images, labels


def _read_file(path: Path, what: str, item: tuple[int, ...]) -> np.ndarray:
    """One IDX file of bytes: 0, 0, type 8, number of dimensions; the dimensions, big-endian; the values."""
    try:
        with open_plain(path) as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"  # some browsers unpack and keep the name
            raw.seek(0)
            if gzipped:
                check_tail(raw)
            return _parse(gzip.GzipFile(fileobj=raw) if gzipped else raw, path, what, item)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: is cut short or damaged ({printable(error)}); download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({printable(error)}); download it again") from error


def _parse(file: BinaryIO | gzip.GzipFile, path: Path, what: str, item: tuple[int, ...]) -> np.ndarray:
    magic, size = bytes([0, 0, 8, 1 + len(item)]), 4 * (2 + len(item))
    header = file.read(size)
    if header[:4] != magic:
        raise DataError(
            f"{path}: begins with the bytes {header[:4].hex()}, but a file of {what} with {magic.hex()}; "
            "download it again"
        )
    if len(header) < size:
        raise DataError(f"{path}: ends after {len(header)} bytes; download it again")
    count, *dims = struct.unpack(f">{1 + len(item)}I", header[4:])
    if tuple(dims) != item:
        raise DataError(f"{path}: its images are {'x'.join(map(str, dims))}, but only 28x28 can be read")
    if not 1 <= count <= MOST_IMAGES:
        raise DataError(f"{path}: says that it holds {count:,} {what}, which is not to be believed; download it again")
    expected = count * int(np.prod(item, dtype=int))
    values = file.read(expected + 1)
    if len(values) != expected:
        there = f"ends after {len(values):,}" if len(values) < expected else "goes on after the last"
        raise DataError(f"{path}: says that it holds {expected:,} bytes of {what}, but {there}; download it again")
    return np.frombuffer(values, np.uint8).reshape(count, *item)
