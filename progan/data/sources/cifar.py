"""CIFAR-10 and CIFAR-100: the publisher's pickles, read without running them, from the archive or its folder."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from progan.data.source import ImageStream
from progan.data.sources.arrays import RESOLUTION, ArraySource, labelled_stream
from progan.support.errors import DataError, printable
from progan.support.inert_pickle import InertPickle, as_array
from progan.support.plain_files import open_plain, read_plain
from progan.support.tar_files import read_content, tar_members

Split = Literal["train", "test", "all"]

SITE = "https://www.cs.toronto.edu/~kriz/cifar.html"
MOST_BYTES = 2**28  # of one pickle; the largest, CIFAR-100's train, has 155 MB


@dataclass(frozen=True)
class _Release:
    """What the publisher released under one name."""

    kind: str
    title: str
    archive: str
    md5: str  # as the publisher's page states it
    folder: str
    batches: dict[str, list[str]]
    meta: str


_CIFAR10 = _Release(
    kind="cifar10",
    title="CIFAR-10",
    archive="cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    batches={"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
    meta="batches.meta",
)
_CIFAR100 = _Release(
    kind="cifar100",
    title="CIFAR-100",
    archive="cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    batches={"train": ["train"], "test": ["test"]},
    meta="meta",
)
_RELEASES = (_CIFAR10, _CIFAR100)
_PICKLE = InertPickle(
    error=DataError,
    refused="plain arrays do not need; nothing in the file was executed, download it from its publisher",
    damaged="no whole pickle ({}); download it again",
    strings="bytes",
)


@dataclass(frozen=True, kw_only=True)
class Cifar10(ArraySource):
    """CIFAR-10: 32x32 colour photos of ten classes, 50,000 to train (which the official tool takes) and 10,000 to test.

    From www.cs.toronto.edu/~kriz/cifar.html, the "python version": cifar-10-python.tar.gz, 163 MB, or the folder
    cifar-10-batches-py unpacked from it: data_batch_1 to data_batch_5, test_batch, batches.meta.
    Its pickles are read as data; nothing in them is executed. That takes 0.3 GB of memory.
    """

    src: Positional[Path]
    """The publisher's archive, or the folder unpacked from it."""
    split: Split = "train"
    """The publisher's training images, the test images, or both, training first."""

    def _open(self) -> ImageStream:
        """Raises DataError naming the file that is missing, damaged, of CIFAR-100 or asks for code to be run."""
        return _stream(self, self.src, self.split, _CIFAR10, labels="labels", label_names="label_names", facts={})


@dataclass(frozen=True, kw_only=True)
class Cifar100(ArraySource):
    """CIFAR-100: 32x32 colour photos of 100 classes in 20 superclasses, 50,000 to train and 10,000 to test.

    From www.cs.toronto.edu/~kriz/cifar.html, the "python version": cifar-100-python.tar.gz, 161 MB, or the folder
    cifar-100-python unpacked from it: train, test, meta.
    Its pickles are read as data; nothing in them is executed. That takes 0.3 GB of memory.
    """

    src: Positional[Path]
    """The publisher's archive, or the folder unpacked from it."""
    split: Split = "train"
    """The publisher's training images, the test images, or both, training first."""
    labels: Literal["fine", "coarse"] = "fine"
    """The 100 classes or the 20 superclasses."""

    def _open(self) -> ImageStream:
        """Raises DataError naming the file that is missing, damaged, of CIFAR-10 or asks for code to be run."""
        return _stream(
            self,
            self.src,
            self.split,
            _CIFAR100,
            labels=f"{self.labels}_labels",
            label_names=f"{self.labels}_label_names",
            facts={"labels": self.labels},
        )


def _stream(
    source: ArraySource,
    src: Path,
    split: Split,
    release: _Release,
    *,
    labels: str,
    label_names: str,
    facts: dict[str, Any],
) -> ImageStream:
    wanted = [name for part in ("train", "test") if split in (part, "all") for name in release.batches[part]]
    content = {name: _Pickle(f"{src}/{name}", data) for name, data in _files(src, release, [release.meta, *wanted])}
    names = content.pop(release.meta).names(label_names)
    batches = [content[name].batch(labels, len(names)) for name in wanted]
    notes = []
    facts = {"kind": release.kind, "split": split, **facts}
    if src.is_file():
        with open_plain(src) as file:
            facts["archive_md5"] = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if facts["archive_md5"] != release.md5:
            notes = [f"{src}: its MD5 is {facts['archive_md5']}, the publisher's {release.md5}: not the same archive"]
    return labelled_stream(
        (pair for images, classes in batches for pair in zip(images, classes, strict=True)),
        sum(len(classes) for _, classes in batches),
        channels=3,
        label_names=names,
        facts=facts,
        attribution={
            "title": release.title,
            "creator": "Alex Krizhevsky, Vinod Nair, Geoffrey Hinton",
            "source": SITE,
        },
        limit=source.images,
        notes=notes,
    )


class _Pickle:
    """One file of the archive, a dict."""

    def __init__(self, where: str, content: bytes) -> None:
        self.where = where
        self.value = _PICKLE.load(io.BytesIO(content), where)

    def field(self, name: str, kind: type) -> Any:
        value = self.value.get(name.encode()) if isinstance(self.value, dict) else None
        if not isinstance(value, kind):
            raise DataError(f'{self.where}: has no "{name}"; download the python version from {SITE}')
        return value

    def names(self, field: str) -> list[str]:
        names = self.field(field, list)
        if not names or not all(isinstance(name, bytes) and name.isascii() for name in names):
            raise DataError(f'{self.where}: its "{field}" are no names; download it again')
        return [name.decode() for name in names]

    def batch(self, labels: str, classes: int) -> tuple[np.ndarray, list[int]]:
        """Images, uint8 [N, 3, 32, 32], and their classes."""
        try:
            rows = as_array(self.field("data", object), ("u1",))
        except ValueError as error:
            raise DataError(
                f'{self.where}: "data" is no whole array of bytes (uint8); download the file again'
            ) from error
        numbers = self.field(labels, list)
        size = 3 * RESOLUTION**2
        if rows.ndim != 2 or rows.shape[1] != size:
            raise DataError(f'{self.where}: its "data" are {list(rows.shape)}, not [N, {size}]; download it again')
        if len(numbers) != len(rows):
            raise DataError(f"{self.where}: {len(numbers):,} {labels} for {len(rows):,} images; download it again")
        wrong = [number for number in numbers if type(number) is not int or not 0 <= number < classes]
        if wrong:
            raise DataError(f"{self.where}: {len(wrong)} {labels} are outside 0..{classes - 1}; download it again")
        return rows.reshape(-1, 3, RESOLUTION, RESOLUTION), numbers  # a row is red, green and blue, each row by row


def _files(src: Path, release: _Release, wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    """The files `wanted`, by name; raises DataError when one is missing or cannot be read."""
    ask = f"pass the publisher's {release.archive} or the folder {release.folder} unpacked from it"
    if not src.exists():
        raise DataError(f"{src}: no such file or folder; {ask}")
    there = set()
    try:
        for name, data in _from_folder(src, release, wanted) if src.is_dir() else _from_archive(src, release, wanted):
            there.add(name)
            yield name, data
    except DataError:
        raise
    except Exception as error:  # a damaged archive raises almost anything
        reason = printable(error).rstrip(":")
        raise DataError(f"{src}: cannot be read to its end ({reason}); download it again, or {ask}") from error
    missing = [name for name in wanted if name not in there]
    if missing:
        raise DataError(f"{src}: lacks {', '.join(missing)} of {release.title}'s python version; {ask}")


def _from_folder(src: Path, release: _Release, wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    if not (src / release.meta).exists():
        for other in _RELEASES:
            if (src / other.meta).exists():
                raise _mistaken(src, other)
    for path in (src / name for name in wanted):
        if path.exists():
            yield path.name, read_plain(path, MOST_BYTES)


def _from_archive(src: Path, release: _Release, wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    with closing(tar_members(src)) as members:
        for member, file in members:
            folder, _, name = member.name.removeprefix("./").partition("/")
            for other in _RELEASES:
                if folder == other.folder != release.folder:
                    raise _mistaken(src, other)
            if folder == release.folder and name in wanted and file is not None:
                _check_size(src / name, member.size)
                yield name, read_content(file)


def _mistaken(src: Path, release: _Release) -> DataError:
    return DataError(f"{src}: is {release.title}; make its data set with `progan data create {release.kind}`")


def _check_size(path: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise DataError(f"{path}: {size:,} bytes are more than any file of the publisher; download it again")
