"""Pictures as they stand inside a page: cut out of a run's grids, no larger than they need be, as data URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from progan.support.plain_files import check_plain
from progan.view.runs import is_inside

PIXELS = 2**26  # of a picture that is opened
LOSSLESS = 2**16  # pixels up to which a picture stays as it is: those in which single ones can be seen
QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """A picture in a page. pixels: whether each of them is to be seen when it is enlarged."""

    uri: str
    width: int
    height: int
    pixels: bool


def embedded(picture: Image.Image, most: int) -> Picture:
    """With sides of at most `most` pixels, each the mean of a box of the original's."""
    picture = (
        picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGBA" if "A" in picture.mode else "RGB")
    )
    picture = picture.reduce(max(1, -(-max(picture.size) // most)))
    memory = io.BytesIO()
    small = picture.width * picture.height <= LOSSLESS
    if small:
        picture.save(memory, "PNG", optimize=True)
    else:
        picture.save(memory, "WEBP", quality=QUALITY, method=4)
    text = base64.b64encode(memory.getvalue()).decode()
    return Picture(f"data:image/{'png' if small else 'webp'};base64,{text}", *picture.size, small)


def open_picture(path: Path, root: Path, size: tuple[int, int] | None = None) -> Image.Image | None:
    """A PNG file in the folder `root`, of so many pixels; None if it is none, cut short, or a link out of there."""
    try:
        check_plain(path)
        if not is_inside(path, root.resolve()):
            return None
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.width * picture.height > PIXELS or (size is not None and picture.size != size):
                return None
            return picture.copy()  # which reads it to its end
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # what damaged pictures raise
        return None


def grid_columns(resolution: int) -> int:
    """How many images there are across and down a run's picture, as `run.preview` makes it."""
    return max(1, min(8, 2048 // resolution))


def first_cells(grid: Image.Image, resolution: int, columns: int, rows: int, side: int) -> Image.Image:
    """The first columns x rows images of a run's grid, in its order, each of at most `side` pixels."""
    across = grid_columns(resolution)
    shrink = max(1, resolution // side)
    cell = resolution // shrink
    sheet = Image.new(grid.mode, (columns * cell, rows * cell))
    for i in range(columns * rows):
        x, y = i % across * resolution, i // across * resolution
        image = grid.crop((x, y, x + resolution, y + resolution)).reduce(shrink)
        sheet.paste(image, (i % columns * cell, i // columns * cell))
    return sheet


def moments(nimg: Sequence[int], phases: Sequence[Mapping[str, Any]], most: int) -> list[int]:
    """At most `most` of the moments, in order: the last, each resolution's last, the first; then evenly between."""
    left = sorted(nimg)
    ends = [max((at for at in left if at <= phase["stop"]), default=None) for phase in phases if not phase["fading"]]
    chosen = list(dict.fromkeys([*left[-1:], *(at for at in reversed(ends) if at is not None), *left[:1]]))[:most]
    while len(chosen) < min(most, len(left)):
        chosen.append(max(left, key=lambda at: min(abs(at - one) for one in chosen)))
    return sorted(chosen)
