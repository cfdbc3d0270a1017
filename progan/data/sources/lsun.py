"""One category of LSUN, as the publisher's LMDB."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from tyro.conf import Positional

from progan.data.formats.lmdb import AGAIN, Record, Tree, read_tree, read_value, records
from progan.data.pictures.decode import open_picture
from progan.data.pictures.tree import shown
from progan.data.source import BadImage, BadImageError, FileSource, ImageStream, Made, OnBad
from progan.data.store.manifest import pyramid_resolutions
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError

_ASK = "pass the unpacked folder of one category, such as bedroom_train_lmdb"


@dataclass(frozen=True, kw_only=True)
class Lsun(FileSource):
    """One category of LSUN (Yu et al., 2015).

    The publisher's script `download.py` (github.com/fyu/lsun, from dl.yf.io/lsun) loads one zip per category and
    split: bedroom_train_lmdb.zip holds 3,033,042 images in 43 GB, church_outdoor_train_lmdb.zip 126,227 in 2.3 GB.
    Unpack it and pass the folder, bedroom_train_lmdb.

    Images come in the order of their keys. Each is cropped to its centred square and, unless it has the resolution
    already, resized by Pillow's Lanczos filter: all as the official tool does. Small images are enlarged, as there;
    dataset.json counts them. The scene categories were published with a shorter side of 256, so at that resolution
    their pixels are only cropped.
    """

    src: Positional[Path]
    """Folder of the LMDB, the one that holds data.mdb."""
    resolution: int = 256
    """Of the images; a power of two."""
    on_bad: OnBad = "skip"
    """What to do about an image that cannot be decoded: skip leaves it out, as the official tool does, and names it,
    fail names all and makes nothing, fix is the same as skip."""

    def _open(self) -> ImageStream:
        """Raises DataError for a resolution that is no power of two, a `src` that is no whole LMDB or is empty."""
        pyramid_resolutions(self.resolution)
        _check_folder(self.src)
        path = self.src.resolve() / "data.mdb"
        tree = read_tree(path)
        if tree.entries == 0:
            raise DataError(f"{self.src}: an LMDB without a single record; {_ASK}")
        total = tree.entries if self.images is None else min(self.images, tree.entries)
        return ImageStream(
            resolution=self.resolution,
            channels=3,
            jobs=_jobs(path, tree, total),
            total=total,
            levels=partial(record_levels, path=path, resolution=self.resolution),
            facts={
                "kind": "lsun",
                **category_and_split(self.src.resolve().name),
                "records": tree.entries,
                "crop": "center",
                "filter": "lanczos",
            },
        )


def category_and_split(folder: str) -> dict[str, str]:
    """What the publisher's folder names tell: bedroom_train_lmdb is a scene's split, cat an object's whole."""
    name = folder.removesuffix("_lmdb")
    if match := re.fullmatch(r"(\w+)_(train|val|test)", name):
        return {"category": match[1], "split": match[2]}
    return {"category": name}


def record_levels(record: Record, *, path: Path, resolution: int) -> Made | BadImage:
    """The image of a record at every resolution from `resolution` down to 4, or why it cannot be decoded."""
    try:
        picture = open_picture(io.BytesIO(read_value(path, record)))
    except BadImageError as error:
        return BadImage(shown(record.key.decode("utf-8", "replace")), str(error))
    enlarged = min(picture.size) < resolution
    return Made(box_pyramid(square_pixels(picture, resolution)), {"enlarged": int(enlarged)})


def square_pixels(picture: Image.Image, resolution: int) -> np.ndarray:
    """The centred square of an RGB picture, resized: uint8 [3, resolution, resolution]."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    if side != resolution:
        # The official tool asks for ANTIALIAS: what Pillow calls LANCZOS now, and no area filter.
        square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))  # [3, resolution, resolution]


def _check_folder(src: Path) -> None:
    if src.suffix == ".zip" and src.is_file():
        raise DataError(f"{src}: is still a zip; unpack it and pass the folder {src.stem}")
    if src.is_file():
        raise DataError(f"{src}: is a file; {_ASK}")
    if not src.is_dir():
        raise DataError(f"{src}: no such folder; {_ASK}")
    if (src / "data.mdb").is_file():
        return
    inside = sorted(shown(path.parent.name) for path in src.glob("*/data.mdb"))
    if inside:
        raise DataError(f"{src}: holds no data.mdb, but its folders do; pass one of them: {', '.join(inside)}")
    zips = sorted(shown(path.name) for path in src.glob("*_lmdb.zip"))
    if zips:
        raise DataError(f"{src}: holds only zips ({', '.join(zips)}); unpack one and pass the folder that comes out")
    raise DataError(f"{src}: holds no data.mdb, so it is no LMDB; {_ASK}")


def _jobs(path: Path, tree: Tree, total: int) -> Iterator[tuple[Record, None]]:
    """The first records in the order of their keys; DataError when there are not as many as the file says."""
    drawn = 0
    for record in islice(records(path, tree), total + (total == tree.entries)):  # one more is one too many
        drawn += 1
        if drawn <= total:
            yield record, None
    if drawn != total:
        raise DataError(f"{path}: its index is damaged (it does not hold {tree.entries:,} records); {AGAIN}")
