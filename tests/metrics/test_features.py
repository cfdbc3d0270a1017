"""FID, KID and inception score against slow formulas, their own laws, and what goes wrong with features."""

import math

import numpy as np
import pytest
import torch

from progan.metrics import features
from progan.metrics.features import (
    FeatureCollector,
    FeatureProtocol,
    frechet_distance,
    frechet_spread,
    inception_score,
    kernel_distance,
)
from progan.metrics.protocol import collect
from progan.support.errors import ConfigError, DataError
from progan.support.rng import keyed_generator

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
LITE0 = FeatureProtocol("efficientnet_lite0", len(IMAGES))


def draw(n: int, d: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Correlated features of unequal variance, off zero: float32 [n, d]."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(d, d)) * np.exp(-np.arange(d) / d * 4)
    return (scale * rng.normal(size=(n, d)) @ mix + 2).astype(np.float32)


def slow_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as it is printed, with the eigenvalues of A B for its root."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).astype(complex)).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * roots.sum())


# FID.


@pytest.mark.parametrize(("n", "m", "d"), [(200, 200, 12), (90, 31, 12), (9, 14, 40), (200, 5, 12)])
def test_the_frechet_distance_is_the_printed_formula(n: int, m: int, d: int) -> None:
    a, b = draw(n, d, seed=1), draw(m, d, seed=2, scale=1.5)
    assert frechet_distance(a, b) == pytest.approx(slow_frechet(a, b), rel=1e-4)  # the slow root loses half the digits


def test_the_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 7))
    q = np.linalg.qr(x - x.mean(0))[0] * math.sqrt(49)  # mean 0 and covariance 1, exactly
    s, t, shift = rng.uniform(0.1, 3, 7), rng.uniform(0.1, 3, 7), rng.normal(size=7)
    assert frechet_distance(q * s, q * t + shift) == pytest.approx(((s - t) ** 2).sum() + (shift**2).sum(), rel=1e-10)


@pytest.mark.parametrize("n", [300, 10])
def test_laws_of_the_frechet_distance(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = draw(n, 30, seed=1), draw(n, 30, seed=2)
    assert abs(frechet_distance(a, a[::-1])) < 1e-9 * a.var(0).sum()  # of a set and itself, in another order
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a.astype(np.float64) + 3) == pytest.approx(30 * 9, rel=1e-9)
    noise = np.random.default_rng(3).normal(size=a.shape)
    rising = [frechet_distance(a, b + level * noise) for level in (0, 1, 2, 4)]
    assert rising == sorted(rising)
    monkeypatch.setattr(features, "ROWS_AT_ONCE", 7)
    assert frechet_distance(a, b) == pytest.approx(rising[0], rel=1e-9)


def test_the_spread_is_that_of_other_fakes() -> None:
    reals = draw(2000, 6, seed=0)
    fakes = [draw(400, 6, seed=seed) + 0.5 for seed in range(1, 41)]
    true = np.std([frechet_distance(x, reals) for x in fakes], ddof=1)
    told = [frechet_spread(x, reals) for x in fakes]
    assert np.mean(told) == pytest.approx(true, rel=0.3)
    parts = [slow_frechet(fakes[0][i::4], reals) for i in range(4)]
    assert frechet_spread(fakes[0], reals, parts=4) == pytest.approx(np.std(parts, ddof=1) / 2, rel=1e-3)
    assert math.isnan(frechet_spread(fakes[0][:15], reals))  # less than two in a part


# KID and inception score.


def slow_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        return float((p.astype(np.float64) @ q.astype(np.float64) / len(p) + 1) ** 3)

    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(kernel(p, q) for p in x for q in y) / (n * m)


def test_the_kernel_distance_is_the_slow_one() -> None:
    x, y = draw(25, 8, seed=1), draw(25, 8, seed=2, scale=2)
    mean, std = kernel_distance(x, y, subsets=3)  # every subset is all
    assert mean == pytest.approx(slow_mmd(x, y), rel=1e-9)
    assert std < 1e-9 * mean


def test_subsets_are_drawn_without_repeats_and_no_larger_than_a_set() -> None:
    x, y = draw(40, 8, seed=1), draw(12, 8, seed=2, scale=2)
    mean, std = kernel_distance(x, y, subsets=2, seed=5)
    subsets = []
    for i in range(2):
        generator = keyed_generator(5, "kid", i)
        chosen = [torch.randperm(len(rows), generator=generator)[:12].numpy() for rows in (x, y)]
        subsets.append(slow_mmd(x[chosen[0]], y[chosen[1]]))
    assert (mean, std) == pytest.approx((np.mean(subsets), np.std(subsets)), rel=1e-9)
    assert kernel_distance(x, y, subsets=2, seed=6)[0] != mean


def test_the_kernel_distance_is_unbiased() -> None:
    values = [kernel_distance(draw(60, 5, 2 * i), draw(60, 5, 2 * i + 1), subsets=1)[0] for i in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 200**0.5
    assert min(values) < 0 < max(values)
    assert kernel_distance(draw(60, 5, 1), draw(60, 5, 2) + 1, subsets=1)[0] > 5 * np.std(values)


def test_the_inception_score_is_the_slow_one() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (47, 6)).astype(np.float32)
    order = torch.randperm(47, generator=keyed_generator(3, "inception score")).numpy()
    scores = []
    for i in range(4):
        p = np.exp(logits[order].astype(np.float64))[i * 47 // 4 : (i + 1) * 47 // 4]
        p /= p.sum(1, keepdims=True)
        scores.append(
            math.exp(np.mean([sum(q * math.log(q / r) for q, r in zip(x, p.mean(0), strict=True)) for x in p]))
        )
    assert inception_score(logits, splits=4, seed=3) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-9)


def test_laws_of_the_inception_score() -> None:
    assert inception_score(np.ones((50, 8), np.float32)) == pytest.approx((1, 0))
    certain = np.tile(np.eye(8, dtype=np.float32) * 1e4, (10, 1))
    assert inception_score(certain, splits=1) == pytest.approx((8, 0))
    assert inception_score(np.repeat(certain[:4], 10, axis=0), splits=1) == pytest.approx((4, 0))  # half the classes
    with pytest.raises(DataError, match="9 images are too few for 10 splits"):
        inception_score(np.ones((9, 8), np.float32))


@pytest.mark.parametrize("measure", [frechet_distance, frechet_spread, kernel_distance])
def test_features_that_do_not_compare(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(DataError, match=r"not \[9, 4\] and \[9, 5\]"):
        measure(draw(9, 4, seed=0), draw(9, 5, seed=0))
    with pytest.raises(DataError, match="1 images are too few"):
        measure(draw(9, 4, seed=0), draw(1, 4, seed=0))


# Images.


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool, bool]]:
    """A network whose features are 4x4 pixels; notes the images of each call, and how they are computed."""
    calls = []

    def network(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append((len(images), torch.backends.cudnn.allow_tf32, torch.is_grad_enabled()))
        x = torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)
        return x, x.exp()

    monkeypatch.setattr(features, "load_feature_network", lambda *_: network)
    return calls


def test_fid_and_kid_of_images(pixels: list[object]) -> None:
    reals, fakes = IMAGES, IMAGES // 2
    a, b = (x.reshape(20, 3, 4, 4, 4, 4).mean((3, 5)).reshape(20, 48).astype(np.float32) for x in (reals, fakes))
    found = features.fid(reals, torch.from_numpy(fakes), images=20)
    assert found == pytest.approx(frechet_distance(a, b), rel=1e-4)
    found_mean, found_std = features.kid([reals[:9], reals[9:]], fakes, images=12)
    assert (found_mean, found_std) == pytest.approx(kernel_distance(b[:12], a[:12]), rel=1e-4)
    with pytest.raises(DataError, match="20 images are too few, 21 are needed"):
        features.fid(reals, fakes, images=21)
    with pytest.raises(DataError, match="reals are 16x16 with 3 channels and fakes 8x8"):
        features.kid(reals, fakes[:, :, :8, :8], images=20)


def test_gray_images_are_gray_rgb_images(pixels: list[object]) -> None:
    gray = collect(IMAGES[:, :1], FeatureCollector(LITE0))["features"]
    assert np.array_equal(gray, collect(IMAGES[:, :1].repeat(3, axis=1), FeatureCollector(LITE0))["features"])


def test_features_are_computed_in_full_float32_and_without_gradients(pixels: list[object]) -> None:
    before = torch.backends.cudnn.allow_tf32
    collect(IMAGES, FeatureCollector(LITE0))
    assert pixels == [(8, False, False), (8, False, False), (4, False, False)]
    assert torch.backends.cudnn.allow_tf32 == before


def test_what_a_protocol_may_be() -> None:
    assert FeatureProtocol().describe() == {"metric": "features", "version": 1, "network": "inception", "images": 50000}
    assert FeatureProtocol().hash != LITE0.hash
    with pytest.raises(ConfigError, match="'vgg' is not known; use one of inception, vgg16, efficientnet_lite0"):
        FeatureProtocol("vgg")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="images is 1; give 2 or more"):
        FeatureProtocol(images=1)
