import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progan.data.show import CELL, GAP, contact_sheet, write_sheet
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.support.errors import DataError


def make(out: Path, *, count: int = 20, channels: int = 3, resolution: int = 16, names: list[str] | None = None):
    rng = np.random.default_rng(0)
    with PyramidWriter(
        out, resolution=resolution, channels=channels, source={"kind": "test"}, label_names=names
    ) as writer:
        for index in range(count):
            image = rng.integers(0, 255, (channels, resolution, resolution), dtype=np.uint8)  # never white
            writer.append(box_pyramid(image), index % len(names) if names else None)
    return ImagePyramid.open(out)


def enlarged(image: np.ndarray, side: int = CELL) -> np.ndarray:
    """uint8 [C, r, r] -> [side, side, 3], every pixel repeated."""
    times = side // image.shape[-1]
    return np.broadcast_to(image.repeat(times, 1).repeat(times, 2), (3, side, side)).transpose(1, 2, 0)


def places(sheet: Image.Image, cell: np.ndarray) -> list[tuple[int, int]]:
    """Where the cell is on the sheet, as (x, y)."""
    pixels = np.asarray(sheet)
    side = len(cell)
    found = []
    for y in range(pixels.shape[0] - side + 1):
        for x in np.flatnonzero((pixels[y, : pixels.shape[1] - side + 1] == cell[0, 0]).all(axis=1)):
            if np.array_equal(pixels[y : y + side, x : x + side], cell):
                found.append((int(x), y))
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_all_levels_of_the_same_images_stand_below_each_other(tmp_path, channels):
    data = make(tmp_path / "data", channels=channels)
    sheet = contact_sheet(data, columns=5)
    columns, rows = set(), set()
    for column, index in enumerate([0, 4, 8, 12, 16]):
        spots = [places(sheet, enlarged(data.read(np.array([index]), r)[0])) for r in (4, 8, 16)]
        assert all(len(spot) == 1 for spot in spots)
        xs = {spot[0][0] for spot in spots}
        assert len(xs) == 1
        columns.add((column, *xs))
        rows.add(tuple(spot[0][1] for spot in spots))
    left = min(x for _, x in columns)
    assert columns == {(column, left + column * (CELL + GAP)) for column in range(5)}
    assert rows == {(GAP, GAP + CELL + GAP, GAP + 2 * (CELL + GAP))}
    assert sheet.size == (left + 5 * (CELL + GAP), GAP + 3 * (CELL + GAP))
    assert (np.asarray(sheet)[:, :left] < 128).any()  # the names of the levels


def test_one_level_fills_rows(tmp_path):
    data = make(tmp_path / "data")
    sheet = contact_sheet(data, level=8, count=10, columns=4)
    assert sheet.size == (GAP + 4 * (CELL + GAP), GAP + 3 * (CELL + GAP))
    for place in range(10):
        image = data.read(np.array([2 * place]), 8)[0]
        spot = (GAP + place % 4 * (CELL + GAP), GAP + place // 4 * (CELL + GAP))
        assert places(sheet, enlarged(image)) == [spot]


def test_large_images_are_not_made_smaller(tmp_path):
    data = make(tmp_path / "data", count=1, resolution=256)
    sheet = contact_sheet(data, level=256)
    assert sheet.size == (256 + 2 * GAP, 256 + 2 * GAP)
    assert places(sheet, enlarged(data.read(np.array([0]), 256)[0], 256)) == [(GAP, GAP)]


def test_fewer_images_than_asked_for(tmp_path):
    data = make(tmp_path / "data", count=3)
    assert contact_sheet(data, level=4).size == (GAP + 3 * (CELL + GAP), GAP + CELL + GAP)
    assert contact_sheet(data).size[1] == GAP + 3 * (CELL + GAP)


def test_classes_are_written_above_the_images(tmp_path):
    data = make(
        tmp_path / "data", names=["cat", "a very long name of a class that no cell\ncan hold \N{GRINNING FACE}"]
    )
    for options, rows in (({"level": 8, "count": 6, "columns": 3}, 2), ({"columns": 3}, 3)):
        sheet = contact_sheet(data, **options)
        bare = GAP + rows * (CELL + GAP)
        captions = 2 if "level" in options else 1
        assert sheet.height > bare
        height = (sheet.height - bare) // captions
        left = sheet.width - 3 * (CELL + GAP)
        for column in range(3):
            x = left + column * (CELL + GAP)
            assert (np.asarray(sheet)[GAP : GAP + height, x : x + CELL] < 128).any()
            assert (np.asarray(sheet)[GAP : GAP + height, x + CELL : x + CELL + GAP] == 255).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 12}, r"has no such resolution; it holds \[4, 8, 16\]"),
        ({"level": 32}, r"--level 32: .* has no such resolution"),
        ({"count": 0}, "0 images in 8 columns"),
        ({"columns": 0}, "64 images in 0 columns"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        contact_sheet(make(tmp_path / "data"), **options)


def test_the_file_is_a_png(tmp_path):
    sheet = contact_sheet(make(tmp_path / "data"))
    write_sheet(sheet, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as read:
        assert read.format == "PNG"
        assert np.array_equal(np.asarray(read), np.asarray(sheet))


def test_drawing_needs_no_torch():
    script = "import sys, progan.data.show, progan.data.pictures.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
