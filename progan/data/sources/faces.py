"""Composed faces: an unlimited, aligned and colourful data set that needs no download.

A seed picks hair, eyes, mouth, beard, clothes and their colours among the drawing parts of the style ToonHead
(by Johan Melin, CC BY 4.0; DiceBear packages it), and resvg rasterises the drawing. A seed is a face: its bytes
depend on the seed and the resolution only, so any range of seeds never seen in training is a test set.
"""

import io
import json
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata, resources
from typing import Any

import numpy as np
from PIL import Image

from progan.data.source import ImageStream, Source
from progan.data.store.manifest import pyramid_resolutions
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError

STYLE = "toon-head"
PACKAGES = ("dicebear-core", "dicebear-styles", "resvg-py")

# The style has no backgrounds of its own. These keep clear of its skin and hair colours.
BACKGROUNDS = [
    "#8ecae6",
    "#95d5b2",
    "#cdb4db",
    "#ffe066",
    "#ff7f6b",
    "#2a9d8f",
    "#4361ee",
    "#9d4edd",
    "#b5e48c",
    "#48cae4",
    "#ff8fab",
    "#f4f1de",
]
# Enlarged as far as the shirts can still be told apart at 32x32; the tallest hair leaves the picture.
FRAMING = {"scale": 1.15, "backgroundColor": BACKGROUNDS}
# Ranges: percent of the picture, degrees. The shoulders stay at the picture's lower edge, or nearly.
LOOSE_FRAMING = FRAMING | {"scale": [0.95, 1.4], "rotate": [-20, 20], "translateX": [-15, 15], "translateY": [-4, 18]}


@dataclass(frozen=True, kw_only=True)
class Faces(Source):
    """Compose faces from drawn parts: aligned, colourful, unlimited, the same for the same seed.

    Nothing is downloaded: the parts come with the optional packages (pip install "progan[faces]").
    """

    count: int
    """Number of faces."""
    resolution: int
    """Pixels, a power of two from 4 up."""
    first_seed: int = 0
    """Seed of the first face; the others follow."""
    loose: bool = False
    """Shift, turn and scale each face, so that its large-scale structure has to be learned too; a seed's parts and
    colours stay."""
    workers: int | None = None
    """Processes; all cores by default."""

    def _open(self) -> ImageStream:
        """The faces of seeds first_seed .. first_seed + count - 1; data sets whose seeds overlap share those images.

        Raises DataError for a resolution that is no power of two of at least 4, a count below 1, a negative seed and
        missing packages.
        """
        pyramid_resolutions(self.resolution)
        if self.first_seed < 0:
            raise DataError(f"seed {self.first_seed} is negative; seeds start at 0")
        check_installed()
        return ImageStream(
            resolution=self.resolution,
            channels=3,
            jobs=((seed, None) for seed in range(self.first_seed, self.first_seed + self.count)),
            total=self.count,
            levels=partial(face_levels, resolution=self.resolution, loose=self.loose),
            facts=face_source(self.first_seed, self.count, loose=self.loose),
            attribution=face_attribution(loose=self.loose),
        )


@lru_cache(maxsize=1)
def check_installed() -> None:
    """Raises DataError with the command to run when the optional packages are missing."""
    try:
        for package in PACKAGES:
            metadata.version(package)
        import dicebear  # noqa: F401
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise DataError('composed faces need optional packages; run: pip install "progan[faces]"') from error


def render_face(seed: int, resolution: int, *, loose: bool = False) -> np.ndarray:
    """The face of `seed` (0 or more): uint8 [3, resolution, resolution], RGB, without transparency.

    loose: shifted, turned and scaled by the seed too.

    Up to 128x128 it is drawn at twice the size and averaged over 2x2 pixels: the rasteriser's own anti-aliasing lets
    the background shine through where two shapes meet, which shows when a pixel is a large part of an eye.
    Raises DataError for a resolution that is no power of two of at least 4, and when the packages are missing.
    """
    check_installed()
    pyramid_resolutions(resolution)
    import resvg_py

    size = max(resolution, min(2 * resolution, 256))
    png = resvg_py.svg_to_bytes(svg_string=_drawing(seed, loose), width=size, height=size, skip_system_fonts=True)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).transpose(2, 0, 1)  # [3, size, size]
    return box_pyramid(pixels)[resolution] if size > resolution else np.ascontiguousarray(pixels)


def face_levels(seed: int, resolution: int, *, loose: bool = False) -> dict[int, np.ndarray]:
    """The face of `seed` at every resolution from `resolution` down to 4: {r: uint8 [3, r, r]}."""
    return box_pyramid(render_face(seed, resolution, loose=loose))


def face_source(first_seed: int, count: int, *, loose: bool = False) -> dict[str, Any]:
    """What made the faces, for the manifest: another version of these packages may draw them differently."""
    return {
        "kind": "faces",
        "style": STYLE,
        "first_seed": first_seed,
        "last_seed": first_seed + count - 1,
        "packages": {package: metadata.version(package) for package in PACKAGES},
        **({"loose": True} if loose else {}),
    }


def face_attribution(*, loose: bool = False) -> dict[str, str]:
    """Who drew the parts and under which licence, word for word from the style's own file."""
    meta = _definition()["meta"]
    return {
        "title": meta["source"]["name"],
        "creator": meta["creator"]["name"],
        "creator_url": meta["creator"]["url"],
        "source": meta["source"]["url"],
        "licence": meta["license"]["name"],
        "licence_url": meta["license"]["url"],
        "text": meta["license"]["text"],
        "changes": "Parts and colours combined at random by DiceBear; plain background added; enlarged"
        f"{', shifted, turned' if loose else ''} and cropped; rasterised",
    }


def _drawing(seed: int, loose: bool) -> str:
    from dicebear import Avatar

    svg = Avatar(_style(), {"seed": str(seed), **(LOOSE_FRAMING if loose else FRAMING)}).to_string()
    # The drawing is clipped to the very edges of the picture, which costs half of the time at 1024x1024.
    return re.sub(r' clip-path="url\(#clip-[0-9a-f]+\)"', "", svg, count=1)


@lru_cache(maxsize=1)
def _style() -> Any:
    from dicebear import Style

    return Style(_definition())


@lru_cache(maxsize=1)
def _definition() -> dict[str, Any]:
    file = resources.files("dicebear_styles").joinpath(f"{STYLE}.json")
    definition: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return definition
