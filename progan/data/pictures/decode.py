"""Decode pictures of any format that Pillow reads, and make them square."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from progan.data.source import BadImageError
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import printable
from progan.support.plain_files import open_plain

Crop = Literal["none", "center"]

# Formats that Pillow names but cannot decode by itself: weather data, arrays, video and drawings; and PostScript,
# which is a program that it would have another program run.
_NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_SCAN = b"\xff\xda"
MOST_SCANNED = 2**31  # scans times pixels: 24 of the largest picture that is decoded; common are 1 and 10
PICTURE_BYTES = 2**30  # of one encoded picture
_COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # what Pillow knows from the start


@lru_cache(maxsize=1)
def picture_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read."""
    Image.init()
    return tuple(kind for kind in Image.OPEN if kind not in _NOT_PICTURES)


def open_picture(file: Path | BinaryIO, mode: Literal["RGB", "L"] = "RGB") -> Image.Image:
    """Decode a picture of any mode and depth.

    The EXIF orientation is applied, transparency shows white, 16-bit gray is divided by 257, of an animation the
    first frame counts, colour profiles are left alone. Raises BadImageError with the reason.
    """
    with opened_picture(file) as opened:
        check_scans(opened)
        tags = getattr(opened, "tag_v2", {})  # of a TIFF file, whose 12-bit and inverted numbers Pillow hands on
        white = 2 ** tags.get(ExifTags.Base.BitsPerSample, (16,))[0] - 1
        inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
        kind = opened.format or ""
        ImageOps.exif_transpose(opened, in_place=True)  # not a copy: large ones cost as much as a third of decoding
        picture = _to_8_bit(opened, kind, white, inverted)
        if picture.mode != mode:
            picture = picture.convert(mode)
        picture.load()
    if kind == "PNG":
        with opened_picture(file) as again:
            again.verify()  # decoding does not look at the checksums
    return picture


def load_image(
    file: Path | BinaryIO,
    *,
    resolution: int,
    channels: int = 3,
    crop: Crop = "none",
    pad: bool = False,
    enlarge: bool = False,
) -> np.ndarray:
    """Decode a picture and bring it to uint8 [channels, resolution, resolution]; channels 3 is RGB, 1 gray.

    It is decoded by `open_picture`. `crop` "center" cuts the largest centred square, `pad` adds
    black bars around the centred picture. A side that is a power of two is halved by the paper's 2x2 boxes, so
    that a data set at 64x64 is the 64x64 level of the same data set at 1024x1024; any other side goes straight to
    the resolution by Lanczos, the filter of the official data tools;
    so does, with `enlarge`, a smaller picture, which is refused otherwise.
    Raises BadImageError with the reason.
    """
    picture = open_picture(file, "L" if channels == 1 else "RGB")
    side = square_side(picture.size, crop=crop, pad=pad)
    if side < resolution and not enlarge:
        raise BadImageError(too_small(side, resolution))
    if picture.width != picture.height:
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))  # outside the picture it is black
    if side & (side - 1) or side < resolution:
        picture = picture.resize((resolution, resolution), Image.Resampling.LANCZOS)
    image = np.stack([np.asarray(channel) for channel in picture.split()])  # [C, H, W]
    return image if image.shape[-1] == resolution else box_pyramid(image)[resolution]


def read_size(file: Path | BinaryIO) -> tuple[int, int]:
    """Width and height by the file's header. Raises BadImageError when there is none that Pillow reads."""
    with opened_picture(file) as opened:
        return opened.size


def square_side(size: tuple[int, int], *, crop: Crop, pad: bool) -> int:
    """The side of the square that a picture of width x height becomes. Raises BadImageError if it may not."""
    width, height = size
    if width != height and crop == "none" and not pad:
        raise BadImageError(f"{width}x{height} is not square; pass --crop center or --pad to make it so")
    return max(width, height) if pad else min(width, height)


def too_small(side: int, resolution: int) -> str:
    """Why a picture of this side cannot be used."""
    if resolution == 4:
        return f"{side}x{side} is smaller than 4x4, the least there is"
    return f"{side}x{side} is smaller than --resolution {resolution}; pass a smaller --resolution"


def _to_8_bit(picture: Image.Image, kind: str, white: int, inverted: bool) -> Image.Image:
    """Any Pillow mode -> one that `convert` turns into L or RGB without loss of meaning.

    white: the highest number of a deep gray picture; inverted: 0 is white there.
    """
    if picture.mode.startswith("I;16") or (picture.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(picture).astype(np.float32)  # [H, W], 0..white
        levels = np.rint(values * np.float32(255 / white)).clip(0, 255).astype(np.uint8)
        return Image.fromarray(255 - levels if inverted else levels)
    if picture.mode in ("I", "F"):
        raise BadImageError(
            f"mode {picture.mode} (32 bits per pixel) says nothing about which value is white; "
            "convert it to 8 or 16 bits"
        )
    if not picture.has_transparency_data:
        return picture
    colours = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)


@contextmanager
def opened_picture(file: Path | BinaryIO) -> Iterator[Image.Image]:
    """A picture of which only the header is read. Raises BadImageError with the reason, also from inside the block."""
    with pillow_errors(), ExitStack() as stack:
        if isinstance(file, Path):
            file = stack.enter_context(open_plain(file, PICTURE_BYTES))
        opened = stack.enter_context(_identified(file))
        yield opened


def _identified(file: BinaryIO) -> Image.Image:
    file.seek(0)
    with suppress(UnidentifiedImageError):  # all formats take longer to import than several pictures to decode
        return Image.open(file, formats=_COMMON)
    file.seek(0)
    return Image.open(file, formats=picture_formats())


def check_scans(opened: Image.Image) -> None:
    """Raise BadImageError for a JPEG that goes over its pixels so often that decoding it would take minutes to days.

    opened: still encoded. The mark of a scan is in nothing that is packed, and in a picture's notes seldom.
    """
    if opened.format not in ("JPEG", "MPO"):
        return
    file: BinaryIO = opened.fp  # type: ignore[attr-defined]
    place, scans, last = file.tell(), 0, b""
    file.seek(0)
    while piece := file.read(2**20):
        scans += (last + piece).count(_SCAN)
        last = piece[-1:]
    file.seek(place)
    if scans * opened.width * opened.height > MOST_SCANNED:
        raise BadImageError(f"its {scans:,} scans of {opened.width}x{opened.height} pixels take too long to decode")


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Whatever goes wrong inside Pillow becomes a BadImageError with a reason; its warnings are silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except BadImageError:
            raise
        except Exception as error:  # every plugin has its own
            raise BadImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than the {Image.MAX_IMAGE_PIXELS:,} pixels that are safe to decode; shrink it first"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow can read"
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine"
    return printable(error)
