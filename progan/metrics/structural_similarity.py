"""MS-SSIM over random pairs of generated images: the lower, the more they vary (paper section 5).

This is the multi-scale structural similarity of Wang, Simoncelli and Bovik (2003), used on GANs by Odena et al. (2017).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from progan.metrics.protocol import Collector, Images, Protocol, Statistics, collect
from progan.metrics.threads import worker_threads
from progan.support.errors import ConfigError, DataError

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # from the full resolution down to a sixteenth of it
WINDOW = 11  # pixels
SIGMA = 1.5  # pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # K1 and K2 times the range of the pixels, squared

BLOCK = 64  # images
PIXELS_AT_ONCE = 16 * 128 * 128  # few enough for the processor's cache, enough to be worth a call
ROWS_AT_ONCE = 64  # likewise, of images that are large
PIXELS_AT_ONCE_ELSEWHERE = 64 * PIXELS_AT_ONCE  # a GPU wants much at once; some hundreds of MB


@dataclass(frozen=True)
class MsSsimProtocol(Protocol):
    """10,000 random pairs, which take 20,000 images."""

    name: ClassVar[str] = "ms_ssim"
    pairs: int = 10_000

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ConfigError(f"ms_ssim: pairs is {self.pairs}; give 1 or more")


class MsSsimCollector(Collector):
    """Compares images 0 and 1 of a stream, 2 and 3, and so on: {"pairs": float64 [pairs]}."""

    def __init__(self, protocol: MsSsimProtocol, device: str | torch.device = "cpu") -> None:
        super().__init__(2 * protocol.pairs, BLOCK)
        self.device = torch.device(device)
        self._pairs: list[np.ndarray] = []

    def _block(self, images: np.ndarray) -> None:
        block = torch.from_numpy(images).to(self.device)
        self._pairs.append(ms_ssim_pairs(block[0::2], block[1::2]).numpy())

    def _statistics(self) -> Statistics:
        return self._rows({"pairs": self._pairs}, images=2)


def ms_ssim(images: Images, *, pairs: int = 10_000, device: str | torch.device = "cpu") -> tuple[float, float]:
    """The mean MS-SSIM over pairs of images, and its standard error.

    images: uint8 [N, C, R, R] in random order, as an array, a tensor or an iterable of batches; the first 2 * pairs
    are used. Raises DataError for fewer.
    """
    return mean_and_error(collect(images, MsSsimCollector(MsSsimProtocol(pairs), device))["pairs"])


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean of independent values [N], and its standard error (NaN for one value)."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)


def ms_ssim_pairs(a: Tensor, b: Tensor) -> Tensor:
    """The MS-SSIM of a[i] and b[i] for every i: float64 [N] on the CPU, from 0 to 1 (the same image twice).

    a, b: [N, C, H, W], uint8 or float on the scale 0 to 255, on any device. Computed in float32; on the CPU the value
    of a pair is the same to the bit whatever the other pairs are. Raises DataError if the shapes differ.
    """
    if a.ndim != 4 or a.shape != b.shape:
        raise DataError(f"MS-SSIM compares [N, C, H, W] of one shape, not {list(a.shape)} with {list(b.shape)}")
    pixels = PIXELS_AT_ONCE if a.device.type == "cpu" else PIXELS_AT_ONCE_ELSEWHERE
    count = max(1, pixels // (a.shape[2] * a.shape[3]))
    with worker_threads() as pool:
        return torch.cat(list(pool.map(_compare, a.split(count), b.split(count))))


@torch.no_grad()
def _compare(a: Tensor, b: Tensor) -> Tensor:
    """`ms_ssim_pairs` of a few images."""
    a, b = a.float(), b.float()
    # All that is needed follows from sum and difference: 2 cov(a, b) = (var(a + b) - var(a - b)) / 2 and
    # var(a) + var(b) = (var(a + b) + var(a - b)) / 2, and the same with products of means. That is one second moment
    # less to filter, and for the same image twice the difference is zero and the value exactly 1.
    x = torch.stack([a + b, a - b])  # [2, N, C, H, W]
    x[0] -= 256  # has no effect on a variance, but keeps the squares small, hence exact
    terms = []
    for scale in range(len(SCALE_WEIGHTS)):
        if scale > 0:
            x = _halve(_halve(x, -2), -1)
        terms.append(_similarity(x, luminance=scale == len(SCALE_WEIGHTS) - 1).clamp(min=0))
    # PyTorch's power differs in the last bit with the length of the tensor; Python's does not.
    rows = torch.stack(terms, dim=1).tolist()  # [N, scales]
    return torch.tensor([math.prod(map(pow, row, SCALE_WEIGHTS)) for row in rows], dtype=torch.float64)


def _similarity(x: Tensor, luminance: bool) -> Tensor:
    """Mean of contrast and structure, times luminance if wanted, of one scale (Wang et al., equations 2 to 4): [N].

    x: [2, N, C, H, W], sum and difference of the images, the sum less 256.
    """
    *_, channels, height, width = x.shape
    window = min(WINDOW, height, width)
    total = torch.zeros(x.shape[1], device=x.device)
    rows = ROWS_AT_ONCE if x.device.type == "cpu" else height
    for top in range(0, height - window + 1, rows):
        strip = x[..., top : top + rows + window - 1, :]
        mean = _blur(strip, window)
        plus, minus = _blur(strip * strip, window).sub_(mean * mean)
        index = (plus - minus).add_(2 * C2).div_((plus + minus).add_(2 * C2))
        if luminance:
            plus, minus = (mean[0] + 256).square_(), mean[1] * mean[1]
            index *= (plus - minus).add_(2 * C1).div_((plus + minus).add_(2 * C1))
        total += index.sum((1, 2, 3))
    return total / (channels * (height - window + 1) * (width - window + 1))


def _blur(x: Tensor, window: int) -> Tensor:
    """Filter the last two axes with a Gaussian, only where all of it fits: [..., H, W] -> [..., H - w + 1, W - w + 1].

    window: w, in pixels. Where images are smaller than the full window, the Gaussian shrinks with it.
    """
    offsets = np.arange(window) - (window - 1) / 2
    taps = np.exp(-0.5 * (offsets / (SIGMA * window / WINDOW)) ** 2)
    first, *others = (taps / taps.sum()).tolist()
    for axis in (-2, -1):
        size = x.shape[axis] - window + 1
        y = x.narrow(axis, 0, size) * first
        for i, tap in enumerate(others, start=1):
            y.add_(x.narrow(axis, i, size), alpha=tap)
        x = y
    return x


def _halve(x: Tensor, axis: int) -> Tensor:
    """Mean of every two neighbours along an axis; the last pixel of an odd number stays itself."""
    last = x.shape[axis] - 1
    if last % 2 == 0:
        x = torch.cat([x, x.narrow(axis, last, 1)], axis)
    even, odd = x.unflatten(axis, (-1, 2)).unbind(axis)
    return (even + odd).mul_(0.5)
