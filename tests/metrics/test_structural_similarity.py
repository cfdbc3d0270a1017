"""MS-SSIM against the official code's numbers, slow loops, and its own laws."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from progan.metrics import structural_similarity as ss
from progan.support.errors import ConfigError, DataError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "official_metrics.npz")
A = GOLDEN["A"]  # uint8 [128, 3, 64, 64]


def draw(count: int, size: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random images with large shapes and noise: uint8 [count, channels, size, size]."""
    rng = np.random.default_rng(seed)
    shapes = rng.normal(0, 1, (count, channels, 3, 3)).repeat(-(-size // 3), 2).repeat(-(-size // 3), 3)
    noise = rng.normal(0, 1, (count, channels, size, size))
    return (128 + 50 * shapes[..., :size, :size] + 20 * noise).clip(0, 255).astype(np.uint8)


def noisy(images: np.ndarray, sigma: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def compare(a: np.ndarray, b: np.ndarray, device: torch.device | str = "cpu") -> np.ndarray:
    return ss.ms_ssim_pairs(torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)).numpy()


def slow_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """One pair [C, H, W] in float64, window by window, as Wang et al. define it."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    product = 1.0
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        _, height, width = a.shape
        n = min(11, height, width)
        line = [math.exp(-((i - (n - 1) / 2) ** 2) / (2 * (1.5 * n / 11) ** 2)) for i in range(n)]
        window = np.outer(line, line) / sum(line) ** 2
        terms = []
        for c, top, left in np.ndindex(a.shape[0], height - n + 1, width - n + 1):
            x, y = (image[c, top : top + n, left : left + n] for image in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            term = (2 * covariance + c2) / (var_x + var_y + c2)
            if scale == 4:
                term *= (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            terms.append(term)
        product *= max(float(np.mean(terms)), 0.0) ** weight
        a, b = slow_half(a), slow_half(b)
    return product


def slow_half(x: np.ndarray) -> np.ndarray:
    channels, height, width = x.shape
    half = np.zeros((channels, (height + 1) // 2, (width + 1) // 2))
    for c, i, j in np.ndindex(half.shape):
        rows, columns = (2 * i, min(2 * i + 1, height - 1)), (2 * j, min(2 * j + 1, width - 1))
        half[c, i, j] = sum(x[c, row, column] for row in rows for column in columns) / 4
    return half


# Against the official code and the definition.


def test_pairs_have_the_official_values(device: torch.device) -> None:
    np.testing.assert_allclose(compare(A[0::2], A[1::2], device), GOLDEN["ms_ssim_pairs"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "channels"), [(4, 3), (7, 1), (8, 3), (12, 1), (13, 1), (16, 3), (24, 1), (77, 1)])
def test_pairs_equal_slow_loops(size: int, channels: int, device: torch.device) -> None:
    images = draw(2, size, channels)
    others = noisy(images, 30)
    expected = [slow_similarity(a, b) for a, b in zip(images, others, strict=True)]
    assert 0 < min(expected) < 0.99
    np.testing.assert_allclose(compare(images, others, device), expected, rtol=0, atol=1e-5)


def test_images_need_not_be_square() -> None:
    a = draw(1, 40)[..., :9, :]
    b = noisy(a, 20)
    assert compare(a, b)[0] == pytest.approx(slow_similarity(a[0], b[0]), abs=1e-5)


@pytest.mark.parametrize("level", [3, 128, 252])
def test_float32_is_exact_enough_for_faint_structure_on_dark_and_bright_ground(level: int) -> None:
    a, b = (noisy(np.full((1, 1, 24, 24), level, np.uint8), 2, seed) for seed in (1, 2))
    assert compare(a, b)[0] == pytest.approx(slow_similarity(a[0], b[0]), abs=2e-5)


# Laws.


def test_the_same_image_twice_gives_one() -> None:
    images = draw(3, 32)
    assert compare(images, images).tolist() == [1.0, 1.0, 1.0]


def test_noise_lowers_the_value_steadily() -> None:
    images = draw(4, 64)
    values = np.array([compare(images, noisy(images, sigma)) for sigma in (0, 2, 5, 10, 20)])
    assert (np.diff(values, axis=0) < 0).all()


def test_an_image_and_its_negative_give_zero() -> None:
    images = draw(3, 64)
    assert compare(images, 255 - images).tolist() == [0.0, 0.0, 0.0]


def test_grayscale_is_the_same_as_repeated_to_rgb() -> None:
    a = draw(3, 32, channels=1)
    b = noisy(a, 20)
    np.testing.assert_allclose(compare(a, b), compare(a.repeat(3, 1), b.repeat(3, 1)), rtol=0, atol=1e-6)


def test_float_images_give_what_uint8_gives() -> None:
    a, b = draw(2, 32), draw(2, 32, seed=1)
    assert np.array_equal(compare(a.astype(np.float64), b.astype(np.float32)), compare(a, b))


@pytest.mark.parametrize("size", [4, 8, 16, 256])
def test_every_size_gives_values_from_zero_to_one(size: int) -> None:
    values = compare(draw(6, size), draw(6, size, seed=1))
    assert np.isfinite(values).all()
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("size", [5, 8, 64, 128])
def test_a_pair_has_the_same_value_alone_and_from_any_thread(size: int) -> None:
    a = draw(19, size)
    b = noisy(a, 30)
    alone = np.concatenate([compare(a[i : i + 1], b[i : i + 1]) for i in range(19)])
    assert np.array_equal(compare(a, b), alone)
    torch.set_num_threads(2)
    together = compare(a, b)
    torch.set_num_threads(1)
    assert np.array_equal(together, alone)


# The stream.


def test_the_value_is_the_mean_over_consecutive_pairs_with_its_standard_error() -> None:
    pairs = GOLDEN["ms_ssim_pairs"][:50]
    value, error = ss.ms_ssim(A, pairs=50)  # the rest of A is left out
    assert value == pytest.approx(pairs.mean(), abs=1e-5)
    assert error == pytest.approx(pairs.std(ddof=1) / 50**0.5, abs=1e-5)


def test_one_pair_has_no_standard_error() -> None:
    value, error = ss.ms_ssim(A, pairs=1)
    assert value == pytest.approx(GOLDEN["ms_ssim_pairs"][0], abs=1e-5)
    assert math.isnan(error)


def batches(size: int) -> Iterator[np.ndarray]:
    return (A[i : i + size] for i in range(0, len(A), size))


@pytest.mark.parametrize("size", [1, 7, 33])
def test_cutting_the_stream_has_no_effect(size: int) -> None:
    assert ss.ms_ssim(batches(size), pairs=60) == ss.ms_ssim(torch.from_numpy(A), pairs=60)


def test_more_pairs_leave_the_earlier_ones_alone() -> None:
    few, many = (ss.MsSsimCollector(ss.MsSsimProtocol(pairs)) for pairs in (21, 64))
    for batch in batches(50):
        few.add(batch)
        many.add(batch)
    found = few.finish()["pairs"], many.finish()["pairs"]
    assert [(x.shape, x.dtype) for x in found] == [((21,), np.float64), ((64,), np.float64)]
    assert np.array_equal(found[0], found[1][:21])


# What is refused.


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="128 images are too few, 20000 are needed"):
        ss.ms_ssim(A)


@pytest.mark.parametrize("images", [A.astype(np.float32), A[0], A[:, :2], A[..., :32], A[..., :3, :3]])
def test_other_types_and_shapes_are_refused(images: np.ndarray) -> None:
    with pytest.raises(DataError):
        ss.ms_ssim(images, pairs=2)


def test_pairs_of_different_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"not \[2, 3, 64, 64\] with \[1, 3, 64, 64\]"):
        compare(A[:2], A[:1])


def test_the_protocol_is_the_papers_and_refuses_no_pairs() -> None:
    assert ss.MsSsimProtocol().describe() == {"metric": "ms_ssim", "version": 1, "pairs": 10_000}
    with pytest.raises(ConfigError, match="pairs is 0"):
        ss.MsSsimProtocol(pairs=0)
