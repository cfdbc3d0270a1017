"""Pictures in a page: cut where a run's grid has its images, and no larger than need be."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from progan.images import make_grid
from progan.run.preview import Preview
from progan.view.embedded import Picture, embedded, first_cells, grid_columns, moments, open_picture
from tests.conftest import MakeConfig, MakeData


def pixels(picture: Picture) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1])))
    assert image.size == (picture.width, picture.height)
    return np.asarray(image)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("columns", [1, 3, 5])
def test_cells_are_the_first_images_of_the_grid(channels: int, columns: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, channels, 16, 16), dtype=np.uint8)
    cells = first_cells(make_grid(images, 8, 8), 16, columns, 3, 16)
    assert np.array_equal(np.asarray(cells), np.asarray(make_grid(images[: 3 * columns], columns, 3)))
    if channels in (2, 4):
        images[:, -1] = 255  # colours are averaged by their opacity
    small = np.asarray(first_cells(make_grid(images, 8, 8), 16, columns, 3, 8), float)
    boxes = images[: 3 * columns].reshape(-1, channels, 8, 2, 8, 2).mean((3, 5))
    assert np.abs(small - np.asarray(make_grid(boxes.round().astype(np.uint8), columns, 3), float)).max() <= 1


@pytest.mark.parametrize("resolution", [4, 16, 512, 1024, 2048])
def test_the_grid_is_the_runs_own(resolution: int, make_data: MakeData, make_config: MakeConfig) -> None:
    data = make_data(count=2, resolution=resolution)
    assert grid_columns(resolution) == Preview(make_config(resolution=resolution), data).columns


def test_a_small_picture_is_exact_and_a_large_one_is_reduced() -> None:
    values = np.random.default_rng(0).integers(0, 256, (200, 120, 3), dtype=np.uint8)
    assert np.array_equal(pixels(embedded(Image.fromarray(values), 200)), values)
    large = embedded(Image.fromarray(values.repeat(5, 0).repeat(5, 1)), 500)
    assert (large.width, large.height, large.pixels) == (300, 500, False)
    assert len(large.uri) < 200_000


PHASES: list[dict[str, Any]] = [
    {"start": 0, "stop": 10, "resolution": 4, "fading": False},
    {"start": 10, "stop": 20, "resolution": 8, "fading": True},
    {"start": 20, "stop": 30, "resolution": 8, "fading": False},
    {"start": 30, "stop": 1000, "resolution": 16, "fading": False},
]


@pytest.mark.parametrize(
    ("nimg", "most", "wanted"),
    [
        ([], 5, []),
        ([0], 5, [0]),
        ([0, 5, 9, 15, 29], 9, [0, 5, 9, 15, 29]),
        (range(0, 1001, 5), 4, [0, 10, 30, 1000]),
        (range(0, 1001, 5), 2, [30, 1000]),
        (range(0, 1001, 5), 6, [0, 10, 30, 270, 515, 1000]),
    ],
)
def test_moments_show_every_resolution_and_then_what_lies_between(
    nimg: list[int], most: int, wanted: list[int]
) -> None:
    assert moments(nimg, PHASES, most) == wanted


def test_what_is_no_picture_of_the_folder_is_not_read(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside.png", tmp_path / "run"
    root.mkdir()
    Image.new("RGB", (8, 8), "red").save(outside)
    whole = outside.read_bytes()
    (root / "good.png").write_bytes(whole)
    (root / "half.png").write_bytes(whole[:50])
    (root / "jpeg.png").write_bytes(b"\xff\xd8\xff\xe0 no PNG")
    (root / "link.png").symlink_to(outside)
    (root / "folder.png").mkdir()
    good = open_picture(root / "good.png", root, (8, 8))
    assert good is not None
    assert good.getpixel((0, 0)) == (255, 0, 0)
    assert open_picture(root / "good.png", root, (16, 16)) is None
    for name in ("half", "jpeg", "link", "folder", "missing"):
        assert open_picture(root / f"{name}.png", root) is None, name
