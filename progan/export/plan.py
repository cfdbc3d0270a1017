"""The generator as a list of plain operations: one graph that serves every stage of growing.

The run-time scale is folded into the weights (paper 4.1), upsampling into 4x4 kernels, batch normalisation into what
comes before it. Every resolution has its RGB output, and an image at any (resolution, alpha) is a blend of two of them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.config import GeneratorConfig
from progan.images import nearest_up
from progan.layers import EqualizedConv2d, EqualizedLinear, pixel_norm, spread_matrix
from progan.networks import Generator, GeneratorBlock, check_stage


@dataclass(frozen=True, eq=False)
class PixelNorm:
    """x / sqrt(mean of x^2 over the maps + eps), of the latent and of maps: [N, C, ...] -> the same shape."""

    eps: float = 1e-8


@dataclass(frozen=True, eq=False)
class Dense:
    """A product with a matrix, its outputs seen as maps of 4x4: [N, I] -> [N, C, 4, 4].

    weight: float32 [C * 16, I], row c * 16 + 4 y + x is pixel (y, x) of map c; bias: float32 [C], one for a map.
    """

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class Conv:
    """A same-size convolution: [N, I, H, W] -> [N, O, H, W]. weight: float32 [O, I, 3, 3]; bias: float32 [O]."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class UpConv:
    """Nearest 2x upsampling and a 3x3 convolution as one transposed convolution, stride 2, padding 1.

    [N, I, H, W] -> [N, O, 2H, 2W]. weight: float32 [I, O, 4, 4], as a transposed convolution wants it; bias: [O].
    """

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class Activation:
    """max(x, slope x): leaky ReLU with slope 0.2, ReLU with slope 0."""

    slope: float


@dataclass(frozen=True, eq=False)
class ToRgb:
    """Colours of the maps at hand, an output of the plan; the maps go on unchanged.

    weight: float32 [channels, C, 1, 1]; bias: float32 [channels].
    """

    resolution: int
    weight: Tensor
    bias: Tensor


Operation = PixelNorm | Dense | Conv | UpConv | Activation | ToRgb


@dataclass(frozen=True, eq=False)
class Plan:
    """The operations in turn, from z [N, z_dim] with one-hot labels [N, label_dim] appended where there are classes."""

    config: GeneratorConfig
    operations: tuple[Operation, ...]

    @property
    def resolutions(self) -> list[int]:
        """4, 8, ...: one RGB output for each."""
        return [op.resolution for op in self.operations if isinstance(op, ToRgb)]

    @property
    def tanh(self) -> bool:
        """Whether an image goes through tanh last, after the blend of two outputs."""
        return self.config.output == "tanh"


def plan(g: Generator, resolution: int | None = None) -> Plan:
    """The generator's operations up to `resolution`, by default all; batch normalisation by its running statistics.

    Weights are folded in float64 and kept in float32, on the CPU. Raises ConfigError for a resolution it does not have.
    """
    resolution = check_stage(g.config, resolution, 1.0)
    operations: list[Operation] = [PixelNorm()] if g.config.normalize_latent else []
    for r in g.config.resolutions:
        if r <= resolution:
            operations += _block(g.blocks[str(r)])  # type: ignore[arg-type]
            operations.append(ToRgb(r, *_folded(g.to_rgb[str(r)])))
    return Plan(g.config, tuple(operations))


@torch.no_grad()
def run_plan(p: Plan, z: Tensor, labels: Tensor | None = None) -> dict[int, Tensor]:
    """Every RGB output, before blend and tanh: {resolution: float32 [N, channels, resolution, resolution]}.

    z: [N, z_dim], of any length; labels: one-hot [N, label_dim], needed if the plan has labels.
    """
    x = z if labels is None else torch.cat([z, labels], dim=1)
    outputs = {}
    for op in p.operations:
        if isinstance(op, ToRgb):
            outputs[op.resolution] = F.conv2d(x, op.weight, op.bias)
        else:
            x = apply(op, x)
    return outputs


def apply(op: PixelNorm | Dense | Conv | UpConv | Activation, x: Tensor) -> Tensor:
    """What one operation makes of its input; the shapes are those of the operation."""
    match op:
        case PixelNorm(eps):
            return pixel_norm(x, eps)
        case Dense(weight, bias):
            return F.linear(x, weight).view(len(x), -1, 4, 4) + bias.view(-1, 1, 1)
        case Conv(weight, bias):
            return F.conv2d(x, weight, bias, padding=1)
        case UpConv(weight, bias):
            return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
        case Activation(slope):
            return F.leaky_relu(x, slope)


def blend(p: Plan, outputs: dict[int, Tensor], resolution: int, alpha: float = 1.0) -> Tensor:
    """The image at a stage, from the outputs of `run_plan`: [N, channels, resolution, resolution] (paper, figure 2).

    The coarser output with its pixels doubled, and the finer one at weight alpha; then tanh, if the plan has it.
    """
    image = outputs[resolution]
    if alpha < 1.0 and resolution > 4:
        image = torch.lerp(nearest_up(outputs[resolution // 2]), image, alpha)
    return image.tanh() if p.tanh else image


def weight_count(p: Plan) -> int:
    """How many numbers the operations hold."""
    return sum(op.weight.numel() + op.bias.numel() for op in p.operations if not isinstance(op, PixelNorm | Activation))


def _block(block: GeneratorBlock) -> list[Operation]:
    """Two layers, each followed by its activation and pixelwise normalisation."""
    after: list[Operation] = [Activation(0.2 if block.config.activation == "leaky" else 0.0)]
    if block.config.norm == "pixel":
        after.append(PixelNorm())
    if block.resolution == 4:
        first: Operation = Dense(*_folded(block.dense, block.norm0))
    else:
        # Without fused scaling too: the 4x4 kernel is the same function, with 16 multiplies in place of 36.
        weight, bias = _folded(block.conv0, block.norm0)
        spread = spread_matrix("up").to(weight.dtype)
        first = UpConv((weight.flatten(2) @ spread).unflatten(2, (4, 4)).transpose(0, 1).contiguous(), bias)
    return [first, *after, Conv(*_folded(block.conv1, block.norm1)), *after]


def _folded(layer: nn.Module, norm: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer with its scale, and that of the batch normalisation after it, multiplied in."""
    assert isinstance(layer, EqualizedConv2d | EqualizedLinear)
    weight = layer.weight.detach().cpu().double() * layer.scale
    pixels = layer.pixels if isinstance(layer, EqualizedLinear) else 1
    maps = len(weight) // pixels
    bias = torch.zeros(maps, dtype=torch.float64) if layer.bias is None else layer.bias.detach().cpu().double()
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight.detach().cpu().double() / (norm.running_var.cpu().double() + norm.eps).sqrt()
        bias = (bias - norm.running_mean.cpu().double()) * gain + norm.bias.detach().cpu().double()
        weight = weight * gain.repeat_interleave(pixels).view(-1, *[1] * (weight.ndim - 1))
    return weight.float(), bias.float()
