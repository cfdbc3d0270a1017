"""Equalized dense and convolution, fused scaling, pixel norm, minibatch stddev (paper sections 3 and 4)."""

from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.ops import convolution


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale the feature vector of every pixel to unit RMS (paper 4.2).

    x: [N, C, ...], any scale. Returns the same shape and dtype.
    """
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def minibatch_stddev(x: Tensor, group: int, sets: int = 1) -> Tensor:
    """Append one map that says how much the images of a group differ (paper section 3).

    x: [N, C, H, W]; group: images per group; sets: the batch is this many independent sets of N / sets images, one
    after the other, and no group mixes two of them. Image i of M groups goes with i + M, i + 2M, ...; where `group`
    does not divide the set, the first groups have one image more, and a set smaller than `group` is one group.
    Returns [N, C + 1, H, W].
    """
    n, _, h, w = x.shape
    count = n // sets
    m = max(1, count // group)  # groups per set
    g = -(-count // m)  # images of the largest group
    y = x.float().reshape(sets, count, -1)  # [S, N/S, CHW]
    y = F.pad(y, (0, 0, 0, g * m - count)).view(sets, g, m, -1)  # [S, G, M, CHW]  strided groups, short ones padded
    there = torch.arange(g * m, device=x.device).view(g, m, 1) < count  # [G, M, 1]
    size = there.sum(0)  # [M, 1]
    deviation = (y - y.sum(1, keepdim=True) / size) * there
    std = (deviation.square().sum(1) / size + 1e-8).sqrt().mean(-1)  # [S, M]  biased: within the group only
    maps = std.to(x.dtype).repeat(1, g)[:, :count].reshape(n, 1, 1, 1).expand(-1, 1, h, w)
    return torch.cat([x, maps], dim=1)


class EqualizedLinear(nn.Module):
    """Dense layer whose weights are scaled at run time (paper 4.1).

    gain / sqrt(fan_in) multiplies the N(0, 1) weights; with equalized off it is the std of the initial weights.
    Weight [out, in], bias [out / pixels], never scaled; where the outputs are maps of several pixels, the pixels of a
    map share its bias; bias=False leaves it to a normalisation that follows. [N, in] -> [N, out].
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        gain: float = sqrt(2),
        equalized: bool = True,
        pixels: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.pixels = pixels
        std = gain / sqrt(inputs)
        self.scale = std if equalized else 1.0
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (std / self.scale))
        self.bias = nn.Parameter(torch.zeros(outputs // pixels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.repeat_interleave(self.pixels)
        return F.linear(x, self.weight * self.scale, bias)


class EqualizedConv2d(nn.Module):
    """Same-size convolution whose weights are scaled at run time (paper 4.1), alone or fused with a 2x resampling.

    resample: None keeps the size; "up" is nearest 2x upsampling, then the convolution; "down" is the convolution, then
    2x2 average pooling. Both in one strided convolution with a 4x4 kernel, the sum of four shifted copies of the 3x3
    kernel: 16 multiplies in place of 36. Weight [out, in, k, k] in all three, bias [out], never scaled; bias=False
    leaves it to a normalisation that follows. [N, in, H, W] -> [N, out, H', W'].
    """

    spread: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        gain: float = sqrt(2),
        equalized: bool = True,
        resample: str | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        # Section 4.1 prints w / c, but He's constant only works as a multiplier.
        std = gain / sqrt(inputs * kernel**2)
        self.scale = std if equalized else 1.0
        self.resample = resample
        if resample is not None:
            self.register_buffer("spread", spread_matrix(resample), persistent=False)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) * (std / self.scale))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight * self.scale
        bias = None if self.bias is None else self.bias.view(-1)  # a plain tensor, as the kernel is
        if self.resample is not None:
            with torch.autocast(x.device.type, enabled=False):
                kernel = (kernel.flatten(2) @ self.spread).unflatten(2, (4, 4))
        if self.resample == "up":
            kernel = kernel.transpose(0, 1)  # a transposed convolution wants [in, out, k, k]
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, kernel, bias = x.to(dtype), kernel.to(dtype), None if bias is None else bias.to(dtype)
        # Without it the format of a gradient decides that of all before it, and slow paths follow.
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        return convolution(x, kernel, bias, stride=1 if self.resample is None else 2, transposed=self.resample == "up")


class MinibatchDiscrimination(nn.Module):
    """A map per kernel that says how close the other images of the minibatch are (Salimans et al., 2016).

    Each image is projected to `kernels` points of `dims` dimensions; its number for a kernel is the sum of
    exp(-L1 distance) to the points of the others, 0 for an image alone. x: [N, C, H, W] of `inputs` = C H W numbers
    each; sets: as for `minibatch_stddev`. Returns [N, kernels, H, W].
    """

    def __init__(self, inputs: int, kernels: int, dims: int, *, equalized: bool = True) -> None:
        super().__init__()
        self.kernels = kernels
        self.project = EqualizedLinear(inputs, kernels * dims, gain=1.0, equalized=equalized, bias=False)

    def forward(self, x: Tensor, sets: int = 1) -> Tensor:
        n, _, h, w = x.shape
        points = self.project(x.flatten(1)).float().view(sets, n // sets, self.kernels, -1)  # [S, N/S, K, D]
        distances = (points[:, :, None] - points[:, None]).abs().sum(-1)  # [S, N/S, N/S, K]
        others = (1.0 - torch.eye(n // sets, device=x.device))[..., None]  # [N/S, N/S, 1]
        closeness = ((-distances).exp() * others).sum(2)  # [S, N/S, K]
        return closeness.to(x.dtype).view(n, self.kernels, 1, 1).expand(-1, -1, h, w)


class LayerNorm(nn.Module):
    """Zero mean and unit variance over all numbers of one image, then one gain and a bias per map (Ba et al., 2016).

    The gain is one number, as in the paper's Theano code; biased variance, + 1e-4. [N, C, ...] -> the same shape.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(1, x.ndim))
        variance, mean = torch.var_mean(x.float(), dim=axes, correction=0, keepdim=True)
        y = (x.float() - mean) * ((variance + 1e-4).rsqrt() * self.gain)
        return (y + self.bias.view(-1, *[1] * (x.ndim - 2))).to(x.dtype)


def batch_norm(maps: int) -> nn.Module:
    """Batch normalisation with the constants of the paper's Theano code. [N, C, H, W] -> the same shape."""
    return nn.BatchNorm2d(maps, eps=1e-4, momentum=0.1)


@dataclass(frozen=True)
class ChannelNoise:
    """Multiplicative Gaussian noise, one number per image and map, that LSGAN's D needs (appendix B).

    x (1 + N(0, 1) strength sqrt(C)): [N, C, H, W] -> the same shape. strength: a scalar; every call draws anew.
    batch, rows: x holds these rows, int64 [M], of each minibatch of so many images; noise is drawn for all of them.
    """

    strength: Tensor
    generator: torch.Generator
    batch: int
    rows: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        normal = torch.randn(n // len(self.rows), self.batch, c, 1, 1, generator=self.generator)[:, self.rows]
        normal = normal.reshape(n, c, 1, 1).to(x.device)
        return x * (1.0 + normal * (self.strength * sqrt(c))).to(x.dtype)


def spread_matrix(resample: str) -> Tensor:
    """The linear map from a 3x3 kernel to the 4x4 one that also resamples: float32 [9, 16] on the CPU, both row by row.

    The sum of four copies shifted by one pixel; a quarter of it for "down", which takes a mean; turned around for "up",
    since a transposed convolution walks its kernel backwards.
    """
    with torch.device("cpu"):  # whatever device a network is being built on
        copies = F.conv_transpose2d(torch.eye(9).view(9, 1, 3, 3), torch.ones(1, 1, 2, 2))
    return (copies.flip(2, 3) if resample == "up" else copies / 4).flatten(1)
