"""Decode pictures of any format that Pillow reads, and make them square."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from progan.data.pyramid import box_pyramid
from progan.data.source import BadImageError

Crop = Literal["none", "center"]


def open_picture(file: Path | BinaryIO, mode: Literal["RGB", "L"] = "RGB") -> Image.Image:
    """Decode a picture of any mode and depth.

    The EXIF orientation is applied, transparency shows white, 16-bit gray is divided by 257, of an animation the
    first frame counts, colour profiles are left alone. Raises BadImageError with the reason.
    """
    with pillow_errors(), Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened)
        return _to_8_bit(picture, opened.format or "").convert(mode)


def load_image(
    file: Path | BinaryIO, *, resolution: int, channels: int = 3, crop: Crop = "none", pad: bool = False
) -> np.ndarray:
    """Decode a picture and bring it to uint8 [channels, resolution, resolution]; channels 3 is RGB, 1 gray.

    It is decoded by `open_picture`. `crop` "center" cuts the largest centred square, `pad` adds
    black bars around the centred picture. A side that is a power of two is halved by the paper's 2x2 boxes, so
    that a data set at 64x64 is the 64x64 level of the same data set at 1024x1024; any other side goes straight to
    the resolution by Lanczos, the filter of the official data tools.
    Raises BadImageError with the reason.
    """
    picture = open_picture(file, "L" if channels == 1 else "RGB")
    side = square_side(picture.size, crop=crop, pad=pad)
    if side < resolution:
        raise BadImageError(too_small(side, resolution))
    if picture.width != picture.height:
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))  # outside the picture it is black
    if side & (side - 1):
        picture = picture.resize((resolution, resolution), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture).reshape(picture.height, picture.width, channels)
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # [C, H, W]
    return image if image.shape[-1] == resolution else box_pyramid(image)[resolution]


def read_size(file: Path | BinaryIO) -> tuple[int, int]:
    """Width and height by the file's header. Raises BadImageError when there is none that Pillow reads."""
    with pillow_errors(), Image.open(file) as opened:
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


def _to_8_bit(picture: Image.Image, kind: str) -> Image.Image:
    """Any Pillow mode -> one that `convert` turns into L or RGB without loss of meaning."""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(picture).astype(np.float32)  # [H, W], 0..65535
        return Image.fromarray(np.rint(values / 257).clip(0, 255).astype(np.uint8))
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
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine"
    return (str(error).splitlines() or [""])[0] or type(error).__name__
