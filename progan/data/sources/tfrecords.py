"""Data sets of the official TensorFlow code: one TFRecord file per resolution."""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from progan.data.formats.tfrecord import decode_example, read_record, record_offsets
from progan.data.pictures.tree import shown
from progan.data.source import BadImage, BadImageError, FileSource, ImageStream, Levels
from progan.data.store.manifest import MOST_CLASSES, pyramid_resolutions
from progan.data.store.pyramid import box_pyramid, map_npy
from progan.support.errors import DataError, printable

Places = list[tuple[int, int, int]]  # of one image: resolution, and where its record starts and ends

_ASK = "pass the folder of PREFIX-r02.tfrecords, PREFIX-r03.tfrecords, ..."
_NO_LABELS = "move it away to go without labels"
_HIGHEST = 13  # 8192x8192, more than anyone published


@dataclass(frozen=True, kw_only=True)
class Tfrecords(FileSource):
    """A data set of the official TensorFlow code: ProGAN's, StyleGAN's or StyleGAN2's.

    A folder of PREFIX-r02.tfrecords (4x4), PREFIX-r03.tfrecords (8x8) and so on, uncompressed, with
    PREFIX-rxx.labels when there are labels, as `dataset_tool.py` of github.com/tkarras/progressive_growing_of_gans
    writes them. FFHQ is published so (github.com/NVlabs/ffhq-dataset, folder tfrecords: ffhq-r02.tfrecords to
    ffhq-r10.tfrecords, 273 GB in all); download only the files up to the resolution you want.

    Every level is taken as it is stored; levels without a file are made from the highest by 2x2 means. The checksum
    of every record is checked. Labels must be one-hot; the classes are called 0, 1, 2, ...
    """

    src: Positional[Path]
    """Folder of the files or, if it holds several data sets, the folder with the prefix of one: FOLDER/PREFIX."""

    def _open(self) -> ImageStream:
        """Raises DataError for files that are missing, of different counts or shapes, cut short or no TFRecords."""
        prefix, paths = find_files(self.src)
        offsets = {r: record_offsets(path, longest=4 * r * r + 4096, first=self.images) for r, path in paths.items()}
        counts = {paths[r].name: len(found) - 1 for r, found in offsets.items()}
        total = min(counts.values())
        if total < max(counts.values()):
            listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            raise DataError(f"{self.src}: its files hold different numbers of images ({listed}); download them again")
        channels = first_channels(paths, {r: found[1] for r, found in offsets.items()})
        resolution = max(paths)
        labels, label_names = None, None
        label_file = prefix.with_name(f"{prefix.name}-rxx.labels")
        if label_file.exists():
            labels, label_names = read_one_hot(label_file, total, exactly=self.images is None)
        return ImageStream(
            resolution=resolution,
            channels=channels,
            jobs=_jobs(offsets, total, labels),
            total=total,
            levels=partial(record_levels, paths=paths, channels=channels),
            facts={
                "kind": "tfrecords",
                "prefix": shown(prefix.name),
                "levels_as_stored": sorted(paths),
                "levels_made": sorted(set(pyramid_resolutions(resolution)) - paths.keys()),
            },
            label_names=label_names,
        )


def find_files(src: Path) -> tuple[Path, dict[int, Path]]:
    """The prefix of a data set, with its folder, and its files by resolution, ascending.

    Raises DataError when there is none, or more than one to choose from.
    """
    if src.is_file():
        raise DataError(f"{src}: is a file; {_ASK}")
    folder, wanted = (src, None) if src.is_dir() else (src.parent, src.name)
    sets: dict[str, dict[int, Path]] = {}
    try:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); mend its permissions") from error
    for path in inside:
        match = re.fullmatch(r"(.+)-r(\d\d)\.tfrecords", path.name)
        if match and 2 <= int(match[2]) <= _HIGHEST and wanted in (None, match[1]):
            sets.setdefault(match[1], {})[1 << int(match[2])] = path
    if not sets:
        what = "holds no such files" if src.is_dir() else "no such folder and no prefix of such files"
        raise DataError(f"{src}: {what}; {_ASK}")
    if len(sets) > 1:
        choices = ", ".join(str(folder / name) for name in sets)
        raise DataError(f"{src}: holds {len(sets)} data sets; pass one of {choices}")
    [(name, paths)] = sets.items()
    return folder / name, paths


def first_channels(paths: dict[int, Path], ends: dict[int, int]) -> int:
    """How many channels the first image of every file has, 3 or 1. Raises DataError for any other shape."""
    channels, reasons = 0, []
    for resolution, path in paths.items():
        try:
            shape = decode_example(read_record(path, 0, ends[resolution])).shape
        except BadImageError as error:  # one of the bad images, if another file can tell the channels
            reasons.append(f"{path}: record 0: {error}")
            continue
        channels = channels or shape[0]
        if channels not in (1, 3) or shape != (channels, resolution, resolution):
            sides = f"{resolution}x{resolution}"
            raise DataError(f"{path}: its images are {_times(shape)}, not 3x{sides}, or 1x{sides} in all files")
    if not channels:
        raise DataError(f"{reasons[0]}; copy or download it again")
    return channels


def record_levels(job: tuple[int, Places], *, paths: dict[int, Path], channels: int) -> Levels | BadImage:
    """One image at every resolution, as stored where it is stored, or which of its records is bad."""
    index, places = job
    levels: Levels = {}
    for resolution, start, end in places:
        try:
            image = decode_example(read_record(paths[resolution], start, end))
            if image.shape != (channels, resolution, resolution):
                expected = _times((channels, resolution, resolution))
                raise BadImageError(f"it is {_times(image.shape)}, not {expected}")
        except BadImageError as error:
            return BadImage(f"{shown(paths[resolution].name)} record {index} at byte {start}", str(error))
        levels[resolution] = image
    highest = max(levels)
    return levels if len(levels) == len(pyramid_resolutions(highest)) else box_pyramid(levels[highest]) | levels


def read_one_hot(path: Path, count: int, *, exactly: bool = True) -> tuple[np.ndarray, list[str]]:
    """Class indices, int64 [count], from a .npy file of one-hot rows, and the names 0, 1, 2, ... of the classes.

    The file may hold more rows than `count` unless `exactly`. Raises DataError when it is no such file or holds too
    few or too many rows, and for a row that is not one-hot.
    """
    try:
        rows = map_npy(path)
    except (OSError, ValueError) as error:
        reason = printable(error)
        raise DataError(f"{path}: cannot be read as a .npy file ({reason}); copy or download it again") from error
    if rows.ndim != 2 or rows.shape[1] == 0 or rows.dtype.kind not in "fiub":
        raise DataError(
            f"{path}: holds {rows.dtype} {list(rows.shape)}, not one row of numbers per image; {_NO_LABELS}"
        )
    if rows.shape[1] > MOST_CLASSES:
        raise DataError(f"{path}: has {rows.shape[1]:,} classes, more than any data set; {_NO_LABELS}")
    if len(rows) < count or (exactly and len(rows) > count):
        raise DataError(f"{path}: holds labels of {len(rows):,} images, but there are {count:,}; {_NO_LABELS}")
    labels = np.empty(count, np.int64)
    together = max(1, 2**22 // rows.shape[1])
    for start in range(0, count, together):
        some = np.asarray(rows[start : min(start + together, count)])
        wrong = ((some == 1).sum(1) != 1) | ((some != 0).sum(1) != 1)  # [n]
        if wrong.any():
            index = start + int(wrong.argmax())
            raise DataError(f"{path}: the labels of image {index} are not one 1 among zeros; {_NO_LABELS}")
        labels[start : start + len(some)] = some.argmax(1)
    return labels, [str(index) for index in range(rows.shape[1])]


def _jobs(
    offsets: dict[int, "array[int]"], total: int, labels: np.ndarray | None
) -> Iterator[tuple[tuple[int, Places], int | None]]:
    for index in range(total):
        places = [(resolution, found[index], found[index + 1]) for resolution, found in offsets.items()]
        yield (index, places), None if labels is None else int(labels[index])


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
