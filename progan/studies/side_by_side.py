"""Images of several runs side by side in one picture."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from progan.data.pictures.decode import opened_picture
from progan.data.source import BadImageError

# In pixels. A block is 4x6 images of 32x32, twice as large, or 2x3 of 128x128; five blocks fit side by side.
PICTURE_WIDTH = 1600
BLOCK_WIDTH, BLOCK_HEIGHT = 256, 384
SMALLEST_IMAGE = 64
GAP = 20
LETTER, TITLE = 26, 16


@dataclass(frozen=True)
class Block:
    """What is shown of a run: a file that holds a grid of its images; above it the name, and below that what it is."""

    name: str
    title: str
    grid: Path


def side_by_side(blocks: Sequence[Block], resolution: int) -> Image.Image:
    """The upper left images of each grid, all of `resolution`, small ones enlarged; gray where the file is none."""
    images = [_first_images(block.grid, resolution) for block in blocks]
    letter, title = (ImageFont.load_default(size) for size in (LETTER, TITLE))
    width, height = (max(image.size[i] for image in images) for i in (0, 1))
    captions = [textwrap.wrap(block.title, width // (TITLE // 2)) for block in blocks]
    line = TITLE + 4
    head = LETTER + 10 + line * max(map(len, captions)) + 8
    down = math.ceil(len(blocks) / max(1, (PICTURE_WIDTH - GAP) // (width + GAP)))
    across = math.ceil(len(blocks) / down)
    sheet = Image.new("RGB", (GAP + across * (width + GAP), GAP + down * (head + height + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (block, image, lines) in enumerate(zip(blocks, images, captions, strict=True)):
        x, y = GAP + i % across * (width + GAP), GAP + i // across * (head + height + GAP)
        pen.text((x, y), block.name, fill="#111111", font=letter)
        for j, text in enumerate(lines):
            pen.text((x, y + LETTER + 10 + line * j), text, fill="#555555", font=title)
        sheet.paste(image, (x, y + head))
    return sheet


def _first_images(path: Path, side: int) -> Image.Image:
    """As many images of a grid as a block holds, from its upper left corner."""
    scale = max(1, SMALLEST_IMAGE // side)
    width, height = (side * max(1, size // (side * scale)) for size in (BLOCK_WIDTH, BLOCK_HEIGHT))
    try:
        with opened_picture(path) as file:
            grid = file.convert("RGB").crop((0, 0, min(width, file.width), min(height, file.height)))
    except BadImageError:
        grid = Image.new("RGB", (width, height), "#dddddd")
    return grid.resize((grid.width * scale, grid.height * scale), Image.Resampling.NEAREST)
