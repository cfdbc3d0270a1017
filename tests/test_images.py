"""Dynamic range, resampling, fades and picture grids."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from progan.images import box_down, fade_reals, make_grid, mirror, nearest_up, to_float, to_pil, to_uint8, write_png


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_all_256_values_survive_the_dynamic_range() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    floats = to_float(values)
    assert (floats.dtype, float(floats.min()), float(floats.max())) == (torch.float32, -1.0, 1.0)
    assert torch.allclose(floats.diff(), torch.tensor(2 / 255), atol=1e-6)
    assert torch.equal(to_uint8(floats), values)


def test_values_beyond_the_range_are_clipped_and_others_go_to_the_nearest() -> None:
    step = 2 / 255
    floats = torch.tensor([-7.0, -1.01, 1.01, 7.0, -1 + 10.4 * step, -1 + 10.6 * step])
    assert to_uint8(floats).tolist() == [0, 0, 255, 255, 10, 11]
    assert floats[0] == -7.0  # the argument is left as it was


def test_box_down_is_the_mean_of_each_2x2_box() -> None:
    x = draw(2, 3, 8, 8)
    slow = np.zeros((2, 3, 4, 4))
    for i in range(4):
        for j in range(4):
            slow[..., i, j] = x.numpy().astype(np.float64)[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((-1, -2))
    assert np.allclose(box_down(x).numpy(), slow, atol=1e-6)


def test_nearest_up_repeats_each_pixel_and_box_down_undoes_it() -> None:
    x = draw(2, 3, 4, 4)
    up = nearest_up(x)
    assert np.array_equal(up.numpy(), np.kron(x.numpy(), np.ones((2, 2), np.float32)))
    assert torch.equal(box_down(up), x)
    assert nearest_up(torch.from_numpy(pixels(1, 3, 4, 4))).dtype == torch.uint8  # so do pictures


def test_reals_fade_from_half_their_resolution_to_themselves() -> None:
    x = draw(2, 3, 8, 8)
    blurred = x.view(2, 3, 4, 2, 4, 2).mean((3, 5), keepdim=True).expand(2, 3, 4, 2, 4, 2).reshape(x.shape)
    assert torch.equal(fade_reals(x, 1.0), x)
    assert torch.allclose(fade_reals(x, 0.0), blurred, atol=1e-6)
    assert torch.allclose(fade_reals(x, 0.3), 0.7 * blurred + 0.3 * x, atol=1e-6)
    assert torch.allclose(box_down(fade_reals(x, 0.3)), box_down(x), atol=1e-6)  # the coarse image never changes


def test_mirror_flips_left_to_right_only_what_it_is_told() -> None:
    images = pixels(3, 3, 4, 4)
    original = images.copy()
    flipped = mirror(images, np.array([True, False, True]))
    assert np.array_equal(flipped[1], images[1])
    assert np.array_equal(flipped[[0, 2]], images[[0, 2]][:, :, :, ::-1])
    flipped[:] = 0
    assert np.array_equal(images, original)  # a copy: the data set is never written


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_a_grid_goes_row_by_row_and_missing_cells_are_black(channels: int, mode: str) -> None:
    images = pixels(5, channels, 4, 4)
    sheet = make_grid(images, 3, 2)
    assert (sheet.size, sheet.mode) == ((12, 8), mode)
    array = np.array(sheet).reshape(8, 12, channels).transpose(2, 0, 1)
    for i, image in enumerate(images):
        row, column = divmod(i, 3)
        assert np.array_equal(array[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4], image)
    assert not array[:, 4:, 8:].any()


def test_a_scaled_grid_repeats_pixels() -> None:
    images = pixels(4, 3, 4, 4)
    array = np.array(make_grid(images, 2, 2))
    assert np.array_equal(np.array(make_grid(images, 2, 2, scale=3)), array.repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_holds_the_very_pixels(channels: int, tmp_path: Path) -> None:
    image = pixels(channels, 8, 8)
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, to_pil(image))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    read = np.array(Image.open(tmp_path / "a.png")).reshape(8, 8, channels)
    assert np.array_equal(read.transpose(2, 0, 1), image)
