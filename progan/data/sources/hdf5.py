"""Data sets of the official Theano code: one HDF5 file with one array per resolution."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tyro.conf import Positional

from progan.data.pictures.tree import shown
from progan.data.source import BadImage, FileSource, ImageStream, Levels
from progan.data.sources.tfrecords import read_one_hot
from progan.data.store.manifest import pyramid_resolutions
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError, printable
from progan.support.plain_files import check_plain

if TYPE_CHECKING:
    import h5py

_ASK = "pass an HDF5 file that h5tool.py of the official Theano code made"
_CHUNK_BYTES = 2**24  # of several images that are unpacked at once, and kept: more is a trap


@dataclass(frozen=True, kw_only=True)
class Hdf5(FileSource):
    """A data set of the official Theano code, as its `h5tool.py` makes them.

    An HDF5 file such as celeba-hq-1024x1024.h5 or cifar-10-32x32.h5 with the arrays data4x4, data8x8, ...,
    data1024x1024 (uint8, images x channels x height x width), and the labels beside it in cifar-10-32x32-labels.npy
    when there are any. The tool is in github.com/tkarras/progressive_growing_of_gans, branch
    original-theano-version; such files were not published, but are kept by those who made them.
    Needs the package h5py: pip install "progan[sources]".

    Every level is taken as it is stored; missing ones are made from the highest by 2x2 means. Labels must be
    one-hot; the classes are called 0, 1, 2, ...
    """

    src: Positional[Path]
    """The HDF5 file."""

    def _open(self) -> ImageStream:
        """Raises DataError when `src` is no such file, or its arrays are of different counts or no images."""
        if self.src.is_dir() or not self.src.exists():
            raise DataError(f"{self.src}: {'is a folder' if self.src.is_dir() else 'no such file'}; {_ASK}")
        path = str(self.src.resolve())
        _arrays.cache_clear()  # what is there now counts, not what was there when it was last read
        arrays = _arrays(path)
        shapes = {r: array.shape for r, array in arrays.items()}
        stored, channels = shapes[max(shapes)][:2]
        if len({shape[0] for shape in shapes.values()}) > 1:
            listed = ", ".join(f"data{r}x{r} {shape[0]:,}" for r, shape in shapes.items())
            raise DataError(
                f"{self.src}: its arrays hold different numbers of images ({listed}), as when h5tool.py is "
                "interrupted; make or copy the file again"
            )
        if stored == 0:
            raise DataError(f"{self.src}: holds not a single image; {_ASK}")
        for r, array in arrays.items():
            if not _is_stored(array):
                raise DataError(f"{self.src}: data{r}x{r} says that it holds {stored:,} images, but lacks some; {_ASK}")
        label_file = self.src.with_name(f"{self.src.stem}-labels.npy")
        labels, label_names = read_one_hot(label_file, stored) if label_file.exists() else (None, None)
        total = stored if self.images is None else min(self.images, stored)
        return ImageStream(
            resolution=max(shapes),
            channels=channels,
            jobs=_jobs(total, labels),
            total=total,
            levels=partial(stored_levels, path=path),
            facts={
                "kind": "hdf5",
                "file": shown(self.src.name),
                "levels_as_stored": sorted(shapes),
                "levels_made": sorted(set(pyramid_resolutions(max(shapes))) - shapes.keys()),
            },
            label_names=label_names,
        )


def stored_levels(index: int, *, path: str) -> Levels | BadImage:
    """Image `index` at every resolution, as stored where it is stored, or why it cannot be read."""
    levels: Levels = {}
    for resolution, array in _arrays(path).items():
        try:
            levels[resolution] = array[index]
        except (OSError, RuntimeError) as error:  # a damaged chunk, or one packed by a filter that is not installed
            return BadImage(f"data{resolution}x{resolution} image {index}", printable(error))
    highest = max(levels)
    return levels if len(levels) == len(pyramid_resolutions(highest)) else box_pyramid(levels[highest]) | levels


@lru_cache(maxsize=1)
def _arrays(path: str) -> "dict[int, h5py.Dataset]":
    """The arrays of the file by resolution, ascending; opened once in each process.

    Raises DataError when it is no such file. Arrays whose bytes lie in other files are refused, since a file from
    elsewhere could so read any file of the user's.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError('an HDF5 file needs the package h5py; run: pip install "progan[sources]"') from error
    arrays: dict[int, h5py.Dataset] = {}
    try:
        check_plain(Path(path))
        file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_BYTES)
        for name in file:
            match = re.fullmatch(r"data(\d+)x\1", name)
            if not match or int(match[1]) < 4:  # the tool goes down to data1x1
                continue
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise DataError(f"{path}: {name} is a link to elsewhere; {_ASK}")
            arrays[int(match[1])] = _checked(file[name], f"{path}: {name}", int(match[1]))
    except (OSError, RuntimeError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as HDF5 ({printable(error)}); copy or make it again") from error
    if not arrays:
        raise DataError(f"{path}: holds no arrays data4x4, data8x8, ...; {_ASK}")
    if len({array.shape[1] for array in arrays.values()}) > 1:
        raise DataError(f"{path}: its arrays have different numbers of channels; {_ASK}")
    return dict(sorted(arrays.items()))


def _checked(array: Any, name: str, resolution: int) -> "h5py.Dataset":
    import h5py

    if not isinstance(array, h5py.Dataset) or array.shape is None:
        raise DataError(f"{name} is no array; {_ASK}")
    if array.dtype != np.uint8 or len(array.shape) != 4 or array.shape[2:] != (resolution, resolution):
        raise DataError(f"{name} is {array.dtype} {list(array.shape)}, not uint8 images x channels x height x width")
    if resolution & (resolution - 1):
        raise DataError(f"{name} has images of {resolution}x{resolution}, no power of two; {_ASK}")
    if array.shape[1] not in (1, 3):
        raise DataError(f"{name} has images of {array.shape[1]} channels; only 1 and 3 are supported")
    if array.is_virtual or array.external:
        raise DataError(f"{name} lies in other files; {_ASK}")
    image = array.shape[1] * resolution**2
    if array.chunks is not None and math.prod(array.chunks) > max(_CHUNK_BYTES, image):
        raise DataError(f"{name} is packed in pieces of {math.prod(array.chunks):,} bytes, too large to unpack; {_ASK}")
    return array


def _is_stored(array: "h5py.Dataset") -> bool:
    """Whether there are bytes for every image: a size is only a claim, and what is not there reads as black."""
    if array.chunks is None:
        return bool(array.id.get_storage_size() == array.nbytes)
    pieces = math.prod(-(-size // piece) for size, piece in zip(array.shape, array.chunks, strict=True))
    try:
        return bool(array.id.get_num_chunks() == pieces)
    except RuntimeError:  # their list is damaged
        return False


def _jobs(total: int, labels: np.ndarray | None) -> Iterator[tuple[int, int | None]]:
    for index in range(total):
        yield index, None if labels is None else int(labels[index])
