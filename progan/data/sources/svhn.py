"""SVHN: the publisher's cropped digits, as MATLAB files."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from progan.data.source import ImageStream
from progan.data.sources.arrays import RESOLUTION, ArraySource, labelled_stream
from progan.support.errors import DataError, printable
from progan.support.plain_files import open_plain

SITE = "http://ufldl.stanford.edu/housenumbers/"
PARTS = ("train", "test", "extra")


@dataclass(frozen=True, kw_only=True)
class Svhn(ArraySource):
    """SVHN: 32x32 colour crops of house numbers, each around one digit, for non-commercial use only.

    From ufldl.stanford.edu/housenumbers, "Format 2: Cropped Digits": train_32x32.mat (73,257 digits, 182 MB),
    test_32x32.mat (26,032, 64 MB) and extra_32x32.mat (531,131 easier ones, 1.3 GB). Needs the package scipy:
    pip install "progan[sources]". One file is held in memory at a time, unpacked: 0.2 GB for train, 1.7 GB for extra.
    The label is the digit; the publisher's label 10 is the digit 0.
    """

    src: Positional[Path]
    """Folder of the publisher's files."""
    split: Literal["train", "test", "extra", "all"] = "train"
    """Which of the files, or all in this order."""

    def _open(self) -> ImageStream:
        """Raises DataError when scipy or a file is missing, or when a file is damaged or not as published."""
        parts = [part for part in PARTS if self.split in (part, "all")]
        paths = [self.src / f"{part}_32x32.mat" for part in parts]
        if not self.src.is_dir():
            what = "is a file" if self.src.exists() else "no such folder"
            raise DataError(f"{self.src}: {what}; pass the folder that holds {paths[0].name}")
        missing = [path.name for path in paths if not path.exists()]
        if missing:
            raise DataError(f"{self.src}: lacks {', '.join(missing)}; download them from {SITE} (Format 2)")
        labels = [_labels(path) for path in paths]
        return labelled_stream(
            (pair for path, digits in zip(paths, labels, strict=True) for pair in _pairs(path, digits)),
            sum(map(len, labels)),
            channels=3,
            label_names=[str(digit) for digit in range(10)],
            facts={"kind": "svhn", "split": self.split, "format": "2 (cropped digits)"},
            attribution={
                "title": "The Street View House Numbers (SVHN) Dataset",
                "creator": "Yuval Netzer, Tao Wang, Adam Coates, Alessandro Bissacco, Bo Wu, Andrew Y. Ng",
                "source": SITE,
                "licence": "for non-commercial use only",
            },
            limit=self.images,
        )


def _labels(path: Path) -> list[int]:
    """The digits of a file, without its pixels; raises DataError when either is not as published."""
    variables = {name: (shape, kind) for name, shape, kind in _scipy(path, "whosmat")}
    if not {"X", "y"} <= variables.keys():
        raise DataError(f"{path}: holds no X and y, so it is cut short or another file; download it again from {SITE}")
    shape, kind = variables["X"]
    if len(shape) != 4 or shape[:3] != (RESOLUTION, RESOLUTION, 3) or kind != "uint8":
        raise DataError(f"{path}: X is {kind} {list(shape)}, not uint8 [32, 32, 3, N]; download it from {SITE}")
    digits = _array(path, "y").ravel()
    if len(digits) != shape[3]:
        raise DataError(f"{path}: {len(digits):,} labels for {shape[3]:,} images; download it again from {SITE}")
    if not np.isin(digits, range(1, 11)).all():
        raise DataError(f"{path}: a label is outside 1..10; download it again from {SITE}")
    return [int(digit) % 10 for digit in digits]


def _pairs(path: Path, digits: list[int]) -> Iterator[tuple[np.ndarray, int]]:
    pixels = _array(path, "X")  # [H, W, 3, N], the images one after the other in memory
    for index, digit in enumerate(digits):
        yield np.ascontiguousarray(pixels[:, :, :, index].transpose(2, 0, 1)), digit


def _array(path: Path, name: str) -> np.ndarray:
    value = _scipy(path, "loadmat", variable_names=[name])[name]
    if not (isinstance(value, np.ndarray) and value.dtype.kind in "uif"):  # what SciPy cannot read it replaces by text
        raise DataError(f"{path}: {name} is no plain array of numbers; download it again from {SITE}")
    return value


def _scipy(path: Path, function: str, **options: Any) -> Any:
    """scipy.io's `whosmat` or `loadmat`; whatever they raise becomes a DataError."""
    try:
        from scipy import io
    except ImportError as error:
        raise DataError('SVHN needs the package scipy; run: pip install "progan[sources]"') from error
    try:
        with warnings.catch_warnings(), open_plain(path) as file:
            warnings.simplefilter("ignore")
            return getattr(io, function)(file, **options)
    except Exception as error:  # there is no one error for a damaged file
        raise DataError(
            f"{path}: is no whole MATLAB 5 file ({printable(error)}); download it again from {SITE}"
        ) from error
