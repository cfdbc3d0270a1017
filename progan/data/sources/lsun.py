"""One category of LSUN, as the publisher's LMDB."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tyro.conf import Positional

from progan.data.pictures.decode import open_picture
from progan.data.pictures.tree import shown
from progan.data.source import BadImage, BadImageError, FileSource, ImageStream, Made, OnBad
from progan.data.store.manifest import pyramid_resolutions
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError

if TYPE_CHECKING:
    import lmdb

_ASK = "pass the unpacked folder of one category, such as bedroom_train_lmdb"


@dataclass(frozen=True, kw_only=True)
class Lsun(FileSource):
    """One category of LSUN (Yu et al., 2015).

    The publisher's script `download.py` (github.com/fyu/lsun, from dl.yf.io/lsun) loads one zip per category and
    split: bedroom_train_lmdb.zip holds 3,033,042 images in 43 GB, church_outdoor_train_lmdb.zip 126,227 in 2.3 GB.
    Unpack it and pass the folder, bedroom_train_lmdb. Needs the package lmdb: pip install "progan[sources]".

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
        folder = str(self.src.resolve())
        _environment.cache_clear()  # what is there now counts, not what was there when it was last read
        environment = _environment(folder)
        records, page_bytes = environment.stat()["entries"], environment.stat()["psize"]
        promised = (environment.info()["last_pgno"] + 1) * page_bytes
        size = (self.src / "data.mdb").stat().st_size
        if size < promised:  # reading the missing end would kill the process
            raise DataError(
                f"{self.src / 'data.mdb'}: {size:,} bytes, but it was written with {promised:,}; "
                "unpack or download it again"
            )
        if records == 0:
            raise DataError(f"{self.src}: an LMDB without a single record; {_ASK}")
        total = records if self.images is None else min(self.images, records)
        return ImageStream(
            resolution=self.resolution,
            channels=3,
            jobs=_keys(folder, total),
            total=total,
            levels=partial(record_levels, folder=folder, resolution=self.resolution),
            facts={
                "kind": "lsun",
                **category_and_split(self.src.resolve().name),
                "records": records,
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


def record_levels(key: bytes, *, folder: str, resolution: int) -> Made | BadImage:
    """The image kept under `key` at every resolution from `resolution` down to 4, or why it cannot be decoded."""
    try:
        with _environment(folder).begin() as transaction:
            data = transaction.get(key, b"")
        picture = open_picture(io.BytesIO(data))
    except (BadImageError, _lmdb().Error) as error:
        return BadImage(shown(key.decode("utf-8", "replace")), str(error))
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


def _keys(folder: str, total: int) -> Iterator[tuple[bytes, None]]:
    """The first keys in their order, read from the index alone."""
    drawn, reason = 0, "it ends early"
    try:
        with _environment(folder).begin() as transaction:
            for key in islice(transaction.cursor().iternext(keys=True, values=False), total):
                drawn += 1
                yield key, None
    except _lmdb().Error as error:
        reason = str(error)
    if drawn < total:
        raise DataError(f"{folder}: its index is damaged ({reason}); unpack or download it again")


@lru_cache(maxsize=1)
def _environment(folder: str) -> "lmdb.Environment":
    """The LMDB at `folder`, opened once in each process, since LMDB allows no second time.

    It is never written, so no lock is taken and read-only disks will do. Reading ahead helps nobody who wants one
    image here and there of a file much larger than memory.
    """
    lmdb = _lmdb()
    try:
        return lmdb.open(folder, readonly=True, lock=False, create=False, readahead=False)
    except lmdb.Error as error:
        raise DataError(f"{folder}: cannot be opened as an LMDB ({error}); unpack or download it again") from error


def _lmdb() -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise DataError('LSUN needs the package lmdb; run: pip install "progan[sources]"') from error
    return lmdb
