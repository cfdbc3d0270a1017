"""Equalized dense and convolution, fused scaling, pixel norm, and what table 1 has besides (paper sections 3 and 4)."""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.kernels import Equalized, Kernel, as_autocast
from progan.ops import convolution, linear, unit_rms
from progan.support.device import no_autocast


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale the feature vector of every pixel to unit RMS (paper 4.2).

    x: [N, C, ...], any scale. Returns the same shape and dtype, under autocast too.
    """
    with no_autocast(x.device):
        return unit_rms(x, eps)


class EqualizedLinear(Equalized):
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
        kernel, bias = self.kernel()
        return linear(x.to(kernel.dtype), kernel, bias)

    def pull_back(self, grad: Tensor) -> Tensor:
        """The gradient [N, in] of what it was given, of that of its first outputs, [N, 1 to out]."""
        kernel, _ = self.kernel()
        kernel = kernel if len(kernel) == grad.shape[1] else kernel[: grad.shape[1]]
        return linear(grad, kernel.t())

    def prepare(self, scaled: Tensor, bias: Tensor | None) -> Kernel:
        """Weight [out, in], and a bias for every output, [out] or None; both in autocast's dtype.

        scaled: `to_scale` times the scale; bias: the layer's.
        """
        bias = bias if bias is None or self.pixels == 1 else bias.repeat_interleave(self.pixels)
        return as_autocast(scaled), None if bias is None else as_autocast(bias)


class EqualizedConv2d(Equalized):
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
        self.resample, self.stride = resample, 1 if resample is None else 2
        if resample is not None:
            self.register_buffer("spread", spread_matrix(resample).t(), persistent=False)
        # The weights lie in memory as the kernel will, so that to make it copies nothing: [out, k, k, in], or
        # [in, k, k, out] for a transposed convolution.
        self._order, back = ((1, 2, 3, 0), (3, 0, 1, 2)) if resample == "up" else ((0, 2, 3, 1), (0, 3, 1, 2))
        weight = torch.randn(outputs, inputs, kernel, kernel) * (std / self.scale)
        self.weight = nn.Parameter(weight.permute(self._order).contiguous().permute(back))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        kernel, bias = self.kernel()
        return convolution(x.to(kernel.dtype), kernel, bias, stride=self.stride, transposed=self.resample == "up")

    def pull_back(self, grad: Tensor) -> Tensor:
        """The gradient of what it was given, of that of its outputs: [N, out, H', W'] -> [N, in, H, W]."""
        kernel, _ = self.kernel()
        return convolution(grad.to(kernel.dtype), kernel, None, stride=self.stride, transposed=self.resample != "up")

    @property
    def to_scale(self) -> Tensor:
        """What the scale multiplies: of a kernel that is spread, what spreads it, which is less."""
        return self.weight if self.resample is None else self.spread

    def prepare(self, scaled: Tensor, bias: Tensor | None) -> Kernel:
        """The scaled kernel as the convolution wants it, 4x4 if it resamples, channels last; the bias [out], or None.

        [out, in, k, k], or [in, out, k, k] for "up"; both in autocast's dtype. scaled: `to_scale` times the scale;
        bias: the layer's.
        """
        if self.resample is None:
            kernel = scaled
        else:
            rows = self.weight.permute(self._order).flatten(1, 2)  # [out, 9, in], or [in, 9, out]
            with no_autocast(rows.device):
                kernel = torch.bmm(scaled.expand(len(rows), -1, -1), rows).unflatten(1, (4, 4)).permute(0, 3, 1, 2)
        # Without it the format of a gradient decides that of all before it, and slow paths follow.
        kernel = as_autocast(kernel).contiguous(memory_format=torch.channels_last)
        return kernel, None if bias is None else as_autocast(bias.view(-1))  # a plain tensor, as the kernel is


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


class ChannelNoise:
    """Multiplicative Gaussian noise, one number per image and map, that LSGAN's D needs (appendix B).

    x (1 + n strength sqrt(C)): [N, C, H, W] -> the same shape. strength: a scalar; normal: [N, M] from N(0, 1), for the
    M maps of all calls together: each call takes the next C of them.
    """

    def __init__(self, strength: Tensor, normal: Tensor) -> None:
        self._strength, self._left = strength, normal

    def __call__(self, x: Tensor) -> Tensor:
        c = x.shape[1]
        normal, self._left = self._left[:, :c, None, None], self._left[:, c:]
        return x * (1.0 + normal * (self._strength * sqrt(c))).to(x.dtype)


def spread_matrix(resample: str) -> Tensor:
    """The linear map from a 3x3 kernel to the 4x4 one that also resamples: float32 [9, 16] on the CPU, both row by row.

    The sum of four copies shifted by one pixel; a quarter of it for "down", which takes a mean; turned around for "up",
    since a transposed convolution walks its kernel backwards.
    """
    with torch.device("cpu"):  # whatever device a network is being built on
        copies = F.conv_transpose2d(torch.eye(9).view(9, 1, 3, 3), torch.ones(1, 1, 2, 2))
    return (copies.flip(2, 3) if resample == "up" else copies / 4).flatten(1)
