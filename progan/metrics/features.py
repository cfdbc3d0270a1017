"""FID, KID and inception score: image statistics in the feature space of a trained network.

Values of "inception" compare with published ones. Those of "efficientnet_lite0" never do, so they always go by the
names fid_efficientnet_lite0, kid_efficientnet_lite0 and is_efficientnet_lite0.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from torch import Tensor

from progan.metrics.feature_networks import NetworkName, load_feature_network
from progan.metrics.protocol import Collector, Images, Protocol, Statistics, check_same_shape, collect, rgb
from progan.support.arithmetic import number_format
from progan.support.errors import ConfigError, DataError
from progan.support.rng import keyed_generator

ROWS_AT_ONCE = 8192  # of features in float64


@dataclass(frozen=True)
class FeatureProtocol(Protocol):
    """The network, and the number of images of each set: 50,000 in most papers, and FID falls with the number."""

    name: ClassVar[str] = "features"
    network: NetworkName = "inception"
    images: int = 50_000

    def __post_init__(self) -> None:
        if self.network not in get_args(NetworkName):
            raise ConfigError(f"network: {self.network!r} is not known; use one of {', '.join(get_args(NetworkName))}")
        if self.images < 2:
            raise ConfigError(f"features: images is {self.images}; give 2 or more")


class FeatureCollector(Collector):
    """Features and class logits of every image: {"features": float32 [N, D], "logits": float32 [N, K]}.

    weights: see `load_feature_network`. Grayscale is repeated to RGB.
    """

    def __init__(
        self, protocol: FeatureProtocol, device: str | torch.device = "cpu", weights: Path | None = None
    ) -> None:
        self.device = torch.device(device)
        # On a CPU, larger blocks take twice as long: their memory comes fresh from the kernel, page by page.
        super().__init__(protocol.images, block=8 if self.device.type == "cpu" else 64)
        self.network = load_feature_network(protocol.network, str(device), weights)
        self._features: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []

    def _block(self, images: np.ndarray) -> None:
        with torch.inference_mode(), number_format("fp32"):  # which gives the CPU's values; TF32 keeps three digits
            features, logits = self.network(torch.from_numpy(rgb(images)).to(self.device))
        self._features.append(features.cpu().numpy())
        self._logits.append(logits.cpu().numpy())

    def _statistics(self) -> Statistics:
        return self._rows({"features": self._features, "logits": self._logits})


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """FID of two sets of features [N, D]: the Fréchet distance of Gaussians fitted to them (Heusel et al., 2017).

    |mean(a) - mean(b)|^2 + tr(A + B - 2 (A B)^(1/2)), with A and B the unbiased covariances. It falls as N grows, even
    between sets of one distribution: compare values of one N only. Raises DataError for fewer than 2 rows.
    """
    _check(a, b)
    return _distance(_gaussian(a), _gaussian(b))


def frechet_spread(fakes: np.ndarray, reals: np.ndarray, parts: int = 8) -> float:
    """The standard error of `frechet_distance(fakes, reals)` by the choice of fakes; NaN for less than 2 in a part.

    It is std / sqrt(parts) of the distances of disjoint parts of the fakes to all reals. The distances themselves are
    of no use: a part has fewer images, so it is farther away; and where nothing else keeps them apart, near the noise
    floor, the result is up to three times too large. The choice of reals, the same for every generator that one
    compares, is not in it.
    """
    _check(fakes, reals)
    if len(fakes) < 2 * parts or parts < 2:
        return math.nan
    whole = _gaussian(reals)
    distances = [_distance(_gaussian(fakes[part::parts]), whole) for part in range(parts)]
    return float(np.std(distances, ddof=1) / math.sqrt(parts))


def kernel_distance(
    a: np.ndarray, b: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID of two sets of features [N, D]: its mean and its standard deviation over random subsets of both.

    The value of a subset is the unbiased estimate of the squared maximum mean discrepancy under the kernel
    (x . y / D + 1)^3 (Binkowski et al., 2018): around 0, also below, for sets of one distribution, whatever N. A subset
    has no more rows than the smaller set; the standard deviation is 0 where it is both sets whole. Raises DataError for
    fewer than 2 rows.
    """
    _check(a, b)
    size = min(subset_size, len(a), len(b))
    values = []
    for subset in range(subsets):
        generator = keyed_generator(seed, "kid", subset)
        x, y = (_rows(rows, torch.randperm(len(rows), generator=generator)[:size].numpy()) for rows in (a, b))
        values.append(_squared_mmd(x, y))
    return float(np.mean(values)), float(np.std(values))


def inception_score(logits: np.ndarray, *, splits: int = 10, seed: int = 0) -> tuple[float, float]:
    """exp(mean KL divergence of an image's classes from all images' classes): mean and std over `splits` random parts.

    logits: [N, K]. From 1 (all images look alike to the network) to K (each one class for certain, all equally often);
    Salimans et al., 2016. Only inception's logits give published scores. Raises DataError for fewer images than splits.
    """
    if len(logits) < splits:
        raise DataError(f"{len(logits)} images are too few for {splits} splits; give more")
    order = torch.randperm(len(logits), generator=keyed_generator(seed, "inception score"))
    log_p = _rows(logits, order.numpy()).log_softmax(1)
    scores = []
    for i in range(splits):
        part = log_p[i * len(log_p) // splits : (i + 1) * len(log_p) // splits]
        log_mean = part.logsumexp(0) - math.log(len(part))  # finite even for a class that never comes up
        scores.append(float((part.exp() * (part - log_mean)).sum(1).mean().exp()))
    return float(np.mean(scores)), float(np.std(scores))


def fid(reals: Images, fakes: Images, **how: Any) -> float:
    """FID between two sets of images (Heusel et al., 2017), with the arguments of `features_of`."""
    real, fake = features_of(reals, fakes, **how)
    return frechet_distance(fake, real)


def kid(reals: Images, fakes: Images, **how: Any) -> tuple[float, float]:
    """KID between two sets of images (Binkowski et al., 2018): mean and standard deviation over 100 subsets of 1,000.

    Arguments as for `features_of`.
    """
    real, fake = features_of(reals, fakes, **how)
    return kernel_distance(fake, real)


def features_of(
    reals: Images,
    fakes: Images,
    *,
    device: str | torch.device = "cpu",
    weights: Path | None = None,
    **protocol: Any,
) -> list[np.ndarray]:
    """The features of two sets of images: float32 [N, D] each.

    reals, fakes: uint8 [N, C, R, R], as an array, a tensor or an iterable of batches; the first 50,000 of each are
    used. weights: see `load_feature_network`. protocol: fields of `FeatureProtocol` to change. Raises DataError for too
    few images or sets of different size, ConfigError when the network cannot be loaded.
    """
    chosen = FeatureProtocol(**protocol)
    collectors = [FeatureCollector(chosen, device, weights) for _ in range(2)]
    found = [collect(images, c)["features"] for images, c in zip((reals, fakes), collectors, strict=True)]
    check_same_shape(collectors[0].shape, collectors[1].shape)
    return found


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"features are [N, D] of one network, not {list(a.shape)} and {list(b.shape)}")
    if min(len(a), len(b)) < 2:
        raise DataError(f"features of {min(len(a), len(b))} images are too few to compare; give 2 or more")


def _gaussian(features: np.ndarray) -> tuple[Tensor, Tensor]:
    """The mean [D], and a triangular root R [min(N, D), D] of the covariance R' R; float64.

    R is that of a QR decomposition of the centred features: forming the covariance itself would square their range, and
    lose the small directions that a set of N < D images has none of.
    """
    mean = features.mean(0, dtype=np.float64)
    root = torch.empty(0, features.shape[1], dtype=torch.float64)
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = torch.from_numpy(features[start : start + ROWS_AT_ONCE] - mean)
        root = torch.linalg.qr(torch.cat([root, rows]), mode="r").R
    return torch.from_numpy(mean), root / math.sqrt(len(features) - 1)


def _distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    (mean_a, root_a), (mean_b, root_b) = a, b
    # With A = R'R and B = S'S, the eigenvalues of A B are the squared singular values of R S'. So the trace of its root
    # is their sum, the nuclear norm: no root of a nearly singular matrix, and no imaginary part to drop.
    overlap = torch.linalg.matrix_norm(root_a @ root_b.T, "nuc")
    total = (mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * overlap
    return float(total)


def _rows(features: np.ndarray, chosen: np.ndarray) -> Tensor:
    return torch.from_numpy(features[chosen]).double()


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate from x and y [n, D]: pairs of a row with itself are left out within a set."""
    n, dim = x.shape
    within = 0.0
    for z in (x, y):
        kernel = (z @ z.T / dim + 1) ** 3  # [n, n]
        within += float(kernel.sum() - kernel.trace()) / (n * (n - 1))
    return within - 2 * float(((x @ y.T / dim + 1) ** 3).mean())
