"""A folder of pictures, in any format that Pillow reads."""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from progan.data.manifest import pyramid_resolutions
from progan.data.pyramid import box_pyramid
from progan.errors import DataError

Crop = Literal["none", "center"]

# Formats that Pillow names but cannot decode by itself: weather data, arrays and video.
_NOT_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG"}


class BadImageError(DataError):
    """One picture cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class ImageFile:
    """A picture to read: `name` is its path inside the folder, `label` its class index or None."""

    path: Path
    name: str
    label: int | None = None


@dataclass(frozen=True)
class BadImage:
    """A picture that cannot be used, and why."""

    name: str
    reason: str


@dataclass
class Survey:
    """What a folder holds, known from names and file headers alone."""

    files: list[ImageFile] = field(default_factory=list)
    bad: list[BadImage] = field(default_factory=list)
    resolution: int = 0
    smallest: str = ""
    label_names: list[str] | None = None
    ignored_hidden: int = 0
    ignored_other: int = 0


def survey_folder(
    src: Path,
    *,
    resolution: int | None = None,
    crop: Crop = "none",
    pad: bool = False,
    labels: Literal["none", "folders"] = "none",
) -> Survey:
    """List the pictures under `src` in the order of their paths, and read the header of each.

    Sub-folders are searched, links to folders followed (but never in a circle); hidden files and files without a
    picture's extension are counted and left out. `resolution` None means the largest power of two that the smallest
    usable picture fills. With labels "folders" the class is the name of the first folder on the way.
    Raises DataError when `src` is no folder or holds no pictures, when a picture lies outside all classes, and for a
    resolution that is no power of two of at least 4.
    """
    if not src.is_dir():
        raise DataError(
            f"{src}: {'is a file, not a folder' if src.exists() else 'no such folder'}; pass a folder of pictures"
        )
    if resolution is not None:
        pyramid_resolutions(resolution)
    if pad and crop != "none":
        raise DataError("--crop center and --pad exclude each other; pass one of them")
    survey = Survey()
    paths = sorted(path.relative_to(src).as_posix() for path in _walk(src, survey, ()))
    if not paths:
        raise DataError(
            f"{src}: holds no pictures ({survey.ignored_other} other and {survey.ignored_hidden} hidden "
            "files were ignored); pass a folder of pictures"
        )
    if labels == "folders":
        survey.label_names = _class_names(src, paths)
    sides: dict[str, int] = {}
    for name in paths:
        try:
            sides[name] = square_side(read_size(src / name), crop=crop, pad=pad)
        except BadImageError as error:
            survey.bad.append(BadImage(shown(name), str(error)))
    usable = {name: side for name, side in sides.items() if side >= 4}
    if usable:
        survey.smallest = min(usable, key=lambda name: usable[name])
    survey.resolution = 1 << (usable.get(survey.smallest, 4).bit_length() - 1) if resolution is None else resolution
    class_index = {name: index for index, name in enumerate(survey.label_names or ())}
    for name, side in sides.items():
        if side < survey.resolution:
            survey.bad.append(BadImage(shown(name), too_small(side, survey.resolution)))
            continue
        survey.files.append(ImageFile(src / name, shown(name), class_index.get(shown(name.split("/")[0]))))
    survey.bad.sort(key=lambda bad: bad.name)
    return survey


def image_levels(
    file: ImageFile, *, resolution: int, channels: int = 3, crop: Crop = "none", pad: bool = False
) -> dict[int, np.ndarray] | BadImage:
    """Read one picture at every resolution from `resolution` down to 4, or say why that cannot be done."""
    try:
        return box_pyramid(load_image(file.path, resolution=resolution, channels=channels, crop=crop, pad=pad))
    except BadImageError as error:
        return BadImage(file.name, str(error))


def load_image(path: Path, *, resolution: int, channels: int = 3, crop: Crop = "none", pad: bool = False) -> np.ndarray:
    """Decode a picture and bring it to uint8 [channels, resolution, resolution]; channels 3 is RGB, 1 gray.

    The EXIF orientation is applied, transparency shows white, 16-bit gray is divided by 257, of an animation the
    first frame counts, colour profiles are left alone. `crop` "center" cuts the largest centred square, `pad` adds
    black bars around the centred picture. A side that is a power of two is halved by the paper's 2x2 boxes, so
    that a data set at 64x64 is the 64x64 level of the same data set at 1024x1024; any other side goes straight to
    the resolution by Lanczos, the filter of the official data tools.
    Raises BadImageError with the reason.
    """
    with _pillow_errors(), Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened)
        picture = _to_8_bit(picture, opened.format or "").convert("L" if channels == 1 else "RGB")
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


def read_size(path: Path) -> tuple[int, int]:
    """Width and height by the file's header. Raises BadImageError when there is none that Pillow reads."""
    with _pillow_errors(), Image.open(path) as opened:
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


def shown(name: str) -> str:
    """A file name that any terminal and JSON file can hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _class_names(src: Path, paths: list[str]) -> list[str]:
    loose = [name for name in paths if "/" not in name]
    if loose:
        raise DataError(
            f"{src}: pictures outside all class folders: {len(loose)}, the first being {shown(loose[0])}; "
            "move them into folders or leave out --labels folders"
        )
    return sorted({shown(name.split("/")[0]) for name in paths})


def _walk(folder: Path, survey: Survey, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Paths of pictures under `folder`; `above` are the folders on the way here, which a link may not enter again."""
    try:
        here = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); mend its permissions or move it away") from error
    inside = (*above, (here.st_dev, here.st_ino))
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:  # a link to nowhere: worth reporting if it calls itself a picture
            status = entry.stat(follow_symlinks=False)
        if entry.name.startswith("."):
            survey.ignored_hidden += 1
        elif stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) not in inside:
                yield from _walk(Path(entry.path), survey, inside)
        elif _is_picture_name(entry.name) and (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            yield Path(entry.path)
        else:
            survey.ignored_other += 1


def _is_picture_name(name: str) -> bool:
    kind = Image.registered_extensions().get(os.path.splitext(name)[1].lower())
    return kind in Image.OPEN and kind not in _NOT_PICTURES


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
def _pillow_errors() -> Iterator[None]:
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
