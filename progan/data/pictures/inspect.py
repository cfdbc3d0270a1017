"""Look at one picture, or at one image of a data set, in a worker process."""

import hashlib
import io
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from progan.data.pictures.decode import open_picture, opened_picture
from progan.data.pictures.duplicates import shapes_and_thumb
from progan.data.pictures.tree import PictureFile, shown
from progan.data.source import BadImageError
from progan.data.store.pyramid import ImagePyramid, box_pyramid


@dataclass
class Look:
    """What a worker process says about one picture; small, since all of them are held at once."""

    entry: dict[str, Any]
    digest: bytes = b""  # of the encoded bytes
    pixels: bytes = b""  # digest of the decoded pixels; empty if there are none
    shapes: int = 0  # perceptual hash
    thumb: bytes = b""
    blank: bool = False
    findings: list[tuple[str, str]] = field(default_factory=list)  # kind, detail


def look_at(file: PictureFile) -> Look:
    """Decode one picture and say all there is to say about it alone."""
    look = Look({"file": shown(file.name), "width": None, "height": None, "format": None, "mode": None})
    if shown(file.name) != file.name:
        look.findings.append(("odd_name", ascii(file.name)))
    try:
        with file.open() as encoded:
            look.digest = hashlib.file_digest(encoded, "sha256").digest()[:16]  # type: ignore[arg-type]
            encoded.seek(0)
            notes = _read_head(encoded, file.name, look)
            encoded.seek(0)
            picture = open_picture(encoded)
    except BadImageError as error:
        look.findings.append((_kind_of(error, look), str(error)))
        return look
    look.findings += notes
    _look_at_pixels(picture, look)
    width, height = picture.size
    look.entry |= {"width": width, "height": height}
    if min(width, height) < 4:
        look.findings.append(("tiny", f"{width}x{height}"))
    elif width != height:
        look.findings.append(("not_square", f"{width}x{height}"))
    return look


def look_at_image(index: int, *, path: Path, step: int) -> Look:
    """Look at one image of a data set; at every `step`-th, also whether the levels are the means of the full one."""
    data = _open_once(path)
    image = data.read(np.array([index]), data.resolution)[0]  # [C, R, R]
    look = Look({"file": f"image {index}"})
    _look_at_pixels(Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).convert("RGB"), look)
    if index % step == 0:
        expected = box_pyramid(image)
        wrong = [r for r in data.resolutions if not np.array_equal(data.read(np.array([index]), r)[0], expected[r])]
        if wrong:
            look.findings.append(("levels", ", ".join(map(str, wrong))))
    return look


@lru_cache(maxsize=1)
def _open_once(path: Path) -> ImagePyramid:
    return ImagePyramid.open(path)


def _read_head(encoded: BinaryIO, name: str, look: Look) -> list[tuple[str, str]]:
    """Note what the file's header says; returns what is worth telling if the picture turns out to be sound."""
    found = []
    with opened_picture(encoded) as opened:
        kind, mode = opened.format or "", opened.mode
        look.entry |= {"width": opened.width, "height": opened.height, "format": kind, "mode": mode}
        expected = Image.registered_extensions().get(Path(name).suffix.lower())
        if kind != expected and {kind, expected} not in ({"JPEG", "MPO"}, {"BMP", "DIB"}):
            found.append(("extension", f"{kind}, not {expected}"))
        if mode not in ("L", "LA", "RGB", "RGBA"):
            found.append(("mode", mode))
        elif ";16" in str(getattr(opened, "tile", "")):
            found.append(("mode", f"{mode}, 16 bits each"))
        profile, gamma = opened.info.get("icc_profile"), opened.info.get("gamma")
        if profile and "sRGB" not in (title := _profile_title(profile)):
            found.append(("profile", title))
        elif not profile and gamma and abs(gamma - 1 / 2.2) > 0.01:
            found.append(("profile", f"gamma {gamma:.3g}"))
        if getattr(opened, "is_animated", False):
            found.append(("animated", f"{opened.n_frames} frames"))  # type: ignore[attr-defined]
        if (turn := opened.getexif().get(ExifTags.Base.Orientation, 1)) in range(2, 9):
            found.append(("rotated", f"orientation {turn}"))
        if opened.has_transparency_data and (lowest := _lowest_alpha(opened)) < 255:
            found.append(("transparent", f"alpha down to {lowest} of 255"))
    return found


def _lowest_alpha(picture: Image.Image) -> int:
    return int(picture.convert("RGBA").getchannel("A").getextrema()[0])  # type: ignore[arg-type]


def _profile_title(profile: bytes) -> str:
    try:
        return ImageCms.getProfileDescription(io.BytesIO(profile)).strip() or "a profile without a name"
    except Exception:  # a damaged profile, or a Pillow without colour management
        return "a profile that cannot be read"


def _look_at_pixels(picture: Image.Image, look: Look) -> None:
    """picture: RGB."""
    width, height = picture.size
    hasher = hashlib.sha256(f"{width}x{height}".encode())
    for top in range(0, height, 256):  # in strips: no second copy of a huge picture
        hasher.update(picture.crop((0, top, width, min(top + 256, height))).tobytes())
    look.pixels = hasher.digest()[:16]
    look.shapes, look.thumb = shapes_and_thumb(picture)
    colour = [low for low, high in picture.getextrema() if low == high]  # type: ignore[misc]
    if len(colour) == 3:
        look.blank = True
        look.findings.append(("blank", f"RGB {colour}"))


def _kind_of(error: BadImageError, look: Look) -> str:
    if isinstance(error.__cause__, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "bomb"
    if look.entry["format"] is None or isinstance(error.__cause__, UnidentifiedImageError):
        return "unreadable"
    return "unknown_mode" if look.entry["mode"] in ("I", "F") else "damaged"
