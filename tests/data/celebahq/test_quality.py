import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image

from progan.data.celebahq.quality import WORST, quality
from tests.packages import photographs

ndimage = pytest.importorskip("scipy.ndimage", reason="blurs by scipy")

# Squares of photographs that are sharp in their own pixels: name, left, top, side.
SHARP = {"astronaut": (100, 0, 256), "hopper": (96, 90, 320), "breakingbad": (500, 100, 512), "takeo": (0, 40, 150)}


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).transpose(2, 0, 1)


def rounded(image: np.ndarray) -> np.ndarray:
    return np.rint(image).clip(0, 255).astype(np.uint8)


@lru_cache
def sharp(name: str) -> np.ndarray:
    """uint8 [3, R, R]; halved, which makes any photograph sharp."""
    left, top, side = SHARP[name]
    with Image.open(photographs()[name]) as opened:
        square = opened.convert("RGB").crop((left, top, left + side, top + side))
    return pixels(square.resize((side // 4 * 2, side // 4 * 2), Image.Resampling.LANCZOS))


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return rounded(ndimage.gaussian_filter(image.astype(float), (0, sigma, sigma)))


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    picture = Image.fromarray(image.transpose(1, 2, 0))
    small = picture.resize((picture.width // factor,) * 2, Image.Resampling.LANCZOS)
    return pixels(small.resize(picture.size, Image.Resampling.LANCZOS))


def jpeg(image: np.ndarray, level: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=level)
    return pixels(Image.open(file).convert("RGB"))


def moved(image: np.ndarray, length: int, axis: int) -> np.ndarray:
    return rounded(ndimage.uniform_filter1d(image.astype(float), length, axis=axis))


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    return rounded(image + np.random.default_rng(0).normal(0, sigma, image.shape))


HARMS: dict[str, list[Callable[[np.ndarray], np.ndarray]]] = {  # each worse than the one before it
    "blur": [lambda x, s=s: blurred(x, s) for s in (0.6, 1, 2, 4)],
    "enlargement": [lambda x, f=f: enlarged(x, f) for f in (2, 4)],
    "motion to the side": [lambda x, n=n: moved(x, n, 2) for n in (5, 9, 15)],
    "motion downwards": [lambda x, n=n: moved(x, n, 1) for n in (5, 9, 15)],
    "JPEG": [lambda x: jpeg(x, 10)],
    "noise": [lambda x, s=s: noisy(x, s) for s in (15, 40)],
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", SHARP)
def test_what_harms_a_sharp_photograph_lowers_its_quality(name, harm):
    ratings = [quality(image) for image in (sharp(name), *(spoil(sharp(name)) for spoil in HARMS[harm]))]
    assert ratings == sorted(ratings, reverse=True)
    assert ratings[0] > ratings[-1] + 0.1


@pytest.mark.parametrize("name", SHARP)
@pytest.mark.parametrize("sigma", [1, 2, 5, 10, 20, 40])
def test_noise_makes_no_blurred_photograph_win_over_a_sharp_one(name, sigma):
    least = min(quality(sharp(other)) for other in SHARP)
    for blur in (1.5, 2, 4):
        assert quality(noisy(blurred(sharp(name), blur), sigma)) < least - 1


@pytest.mark.parametrize("name", SHARP)
def test_brightness_contrast_and_mirroring_make_no_difference(name):
    image = (sharp(name) // 2 + 20).astype(np.uint8)
    assert quality(image + 60) == pytest.approx(quality(image), abs=1e-9)
    assert quality(image[:, :, ::-1]) == pytest.approx(quality(image), abs=1e-9)
    assert quality(image[:, ::-1]) == pytest.approx(quality(image), abs=1e-9)
    assert quality(image) == pytest.approx(quality(sharp(name)), abs=0.2)


def ideal(size: int, seed: int) -> np.ndarray:
    """Power falling with the square of the frequency, in all directions alike, and random phases."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    white = np.fft.fft2(np.random.default_rng(seed).normal(size=(size, size)))
    image = np.fft.ifft2(white / frequency).real
    return rounded(np.stack([128 + 35 * image / image.std()] * 3))


@pytest.mark.parametrize("size", [64, 128, 256])
def test_the_spectrum_of_a_sharp_photograph_is_nearly_perfect(size):
    rating = quality(ideal(size, 0))
    assert -2 < rating <= 0
    assert quality(blurred(ideal(size, 0), 1)) < rating - 1


@pytest.mark.parametrize("size", [32, 64, 256])
def test_what_is_no_picture_is_rated_worst(size):
    assert quality(np.full((3, size, size), 77, np.uint8)) == WORST
    if size > 32:  # else chance decides
        assert quality(np.random.default_rng(1).integers(0, 256, (3, size, size), dtype=np.uint8)) == WORST


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 64, 32), (3, 16, 16)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="at least 32"):
        quality(np.zeros(shape, np.uint8))
