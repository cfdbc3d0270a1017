"""A contact sheet: what a data set looks like, at every level or at one."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from progan.data.pictures.tree import shown
from progan.data.store.pyramid import ImagePyramid
from progan.support.errors import DataError
from progan.support.files import write_whole

GAP = 2  # pixels between cells
CELL = 128  # pixels: smaller images are enlarged to this, so that their pixels can be seen
WIDTH = 2048  # pixels of a sheet of all levels, at most, unless one image alone is wider
CAPTION = 14  # pixels of a line of text
BACKGROUND = (255, 255, 255)
INK = (0, 0, 0)


def contact_sheet(data: ImagePyramid, *, level: int | None = None, count: int = 64, columns: int = 8) -> Image.Image:
    """Draw images spread evenly over the whole data set, each with the name of its class, if it has one.

    level None: a column for each of `columns` images, fewer if they are large, with one row for every resolution, from
    4x4 up. Otherwise `count` images at that resolution in rows of `columns`. Pixels are repeated, never smoothed.
    Raises DataError for a level that the data set lacks and for a count or columns below 1.
    """
    if count < 1 or columns < 1:
        raise DataError(f"{count} images in {columns} columns make no contact sheet; ask for at least 1 of each")
    if level is not None and level not in data.resolutions:
        raise DataError(f"--level {level}: {data.path} has no such resolution; it holds {data.resolutions}")
    cell = max(CELL, level or data.resolution)
    if level is None:
        count = columns = min(columns, max(1, WIDTH // cell))
    count = min(count, data.count)
    columns = min(columns, count)
    chosen = np.arange(count) * data.count // count
    captions = _captions(data, chosen)
    if level is None:
        rows = [[_enlarged(image, cell) for image in data.read(chosen, r)] for r in data.resolutions]
        return _sheet(rows, cell, [f"{r}x{r}" for r in data.resolutions], [captions] + [[]] * (len(rows) - 1))
    cells = [_enlarged(image, cell) for image in data.read(chosen, level)]
    starts = range(0, count, columns)
    return _sheet(
        [cells[start : start + columns] for start in starts], cell, [], [captions[s : s + columns] for s in starts]
    )


def write_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    write_whole(path, lambda file: sheet.save(file, format="PNG"))


def _captions(data: ImagePyramid, chosen: np.ndarray) -> list[str]:
    if data.label_names is None:
        return []
    return [shown(data.label_names[label]) for label in data.read_labels(chosen).argmax(axis=1)]


def _enlarged(image: np.ndarray, side: int) -> Image.Image:
    """image: uint8 [C, r, r]."""
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    return Image.fromarray(pixels).convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def _sheet(rows: list[list[Image.Image]], cell: int, titles: list[str], captions: list[list[str]]) -> Image.Image:
    """Cells in rows; `titles` left of the rows, `captions` above the cells of a row: empty lists for none."""
    font = ImageFont.load_default(size=CAPTION - 4)
    left = GAP + int(max((font.getlength(title) for title in titles), default=0)) + (GAP if titles else 0)
    above = [CAPTION if texts else 0 for texts in captions]
    size = (left + len(rows[0]) * (cell + GAP), GAP + sum(above) + len(rows) * (cell + GAP))
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for index, row in enumerate(rows):
        for column, picture in enumerate(row):
            x = left + column * (cell + GAP)
            if captions[index]:
                draw.text((x, top), _fitting(captions[index][column], font, cell), INK, font)
            sheet.paste(picture, (x, top + above[index]))
        if titles:
            draw.text((GAP, top + above[index]), titles[index], INK, font)
        top += above[index] + cell + GAP
    return sheet


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of the text as the width holds."""
    whole = text
    while text and font.getlength(text + ("…" if text != whole else "")) > width:
        text = text[:-1]
    return text if text == whole else text + "…"
