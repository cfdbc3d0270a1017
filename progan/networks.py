"""The generator and the discriminator that grow together (paper section 2, appendix A.1).

All resolutions are allocated at once, keyed by resolution, so that the names of the weights never change.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from progan.config import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from progan.images import blend, box_down, is_fading, nearest_up
from progan.kernels import Equalized, scale_together
from progan.layers import (
    ChannelNoise,
    EqualizedConv2d,
    EqualizedLinear,
    LayerNorm,
    MinibatchDiscrimination,
    batch_norm,
    pixel_norm,
)
from progan.ops import leaky_relu_, leaky_relu_gradient
from progan.pull_back import Pullbacks, by_autograd, pulled_back
from progan.stddev import minibatch_stddev
from progan.support.device import no_autocast
from progan.support.errors import ConfigError

Noise = Callable[[Tensor], Tensor]


class GeneratorBlock(nn.Module):
    """Dense to 4x4 and a convolution, or 2x upsampling and two convolutions: [N, C, R/2, R/2] -> [N, C', R, R]."""

    def __init__(self, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        maps = config.fmaps_at(resolution)
        self.config = config
        self.resolution = resolution
        batch = config.norm == "batch"
        how: dict[str, Any] = {"equalized": config.equalized, "bias": not batch}
        if resolution == 4:
            # The gain makes up for the dense layer being the 4x4 convolution of a 1x1 image.
            inputs = config.z_dim + config.label_dim
            self.dense = EqualizedLinear(inputs, maps * 16, gain=sqrt(2) / 4, pixels=16, **how)
        else:
            up = "up" if config.fused_scaling else None
            inputs = config.fmaps_at(resolution // 2)
            self.conv0 = EqualizedConv2d(inputs, maps, 3, resample=up, **how)
        self.conv1 = EqualizedConv2d(maps, maps, 3, **how)
        self.norm0, self.norm1 = (batch_norm(maps) if batch else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.resolution == 4:
            x = self.dense(x).view(len(x), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        else:
            x = self.conv0(x if self.config.fused_scaling else nearest_up(x))
        return self._finish(self.norm1(self.conv1(self._finish(self.norm0(x)))))

    def _finish(self, x: Tensor) -> Tensor:
        x = leaky_relu_(x) if self.config.activation == "leaky" else torch.relu(x)
        return pixel_norm(x) if self.config.norm == "pixel" else x


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second with 2x2 average pooling: [N, C, R, R] -> [N, C', R/2, R/2]."""

    def __init__(self, config: DiscriminatorConfig, resolution: int) -> None:
        super().__init__()
        maps, outputs = config.fmaps_at(resolution), config.fmaps_at(resolution // 2)
        self.fused = config.fused_scaling
        layer = config.norm == "layer"
        how: dict[str, Any] = {"equalized": config.equalized, "bias": not layer}
        self.conv0 = EqualizedConv2d(maps, maps, 3, **how)
        self.conv1 = EqualizedConv2d(maps, outputs, 3, resample="down" if self.fused else None, **how)
        self.norm0, self.norm1 = (LayerNorm(n) if layer else nn.Identity() for n in (maps, outputs))

    def forward(self, x: Tensor, noise: Noise, back: Pullbacks) -> Tensor:
        x = _layer(self.conv0, self.norm0, noise(x), back)
        x = _layer(self.conv1, self.norm1, noise(x), back)
        if self.fused:
            return x
        back.append(lambda grad: nearest_up(grad) / 4)
        return box_down(x)


class DiscriminatorHead(nn.Module):
    """What compares a minibatch's images, a convolution and two dense layers: [N, C, 4, 4] -> [N, 1 + label_dim]."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        maps, outputs = config.fmaps_at(4), config.fmaps(0)
        self.group, kernels = config.stddev_group, config.minibatch_kernels
        layer = config.norm == "layer"
        how: dict[str, Any] = {"equalized": config.equalized, "bias": not layer}
        self.conv = EqualizedConv2d(maps + (self.group > 0) + kernels, maps, 3, **how)
        self.dense0 = EqualizedLinear(maps * 16, outputs, **how)
        self.dense1 = EqualizedLinear(outputs, 1 + config.label_dim, gain=1.0, equalized=config.equalized)
        self.norm0, self.norm1 = (LayerNorm(n) if layer else nn.Identity() for n in (maps, outputs))
        self.discrimination = (
            MinibatchDiscrimination(maps * 16, kernels, config.minibatch_dims, equalized=config.equalized)
            if kernels
            else None
        )

    def forward(self, x: Tensor, sets: int, noise: Noise, back: Pullbacks) -> Tensor:
        x = self._compared(x, sets, back)
        x = _layer(self.conv, self.norm0, noise(x), back)
        back.append(lambda grad: grad.view(-1, *x.shape[1:]).contiguous(memory_format=torch.channels_last))
        y = _layer(self.dense0, self.norm1, noise(x).flatten(1), back)
        back.append(self.dense1.pull_back)
        return self.dense1(y)

    def _compared(self, x: Tensor, sets: int, back: Pullbacks) -> Tensor:
        """x and the maps that say how a minibatch's images differ: [N, C', 4, 4]."""
        ways: Pullbacks = []
        y = minibatch_stddev(x, self.group, sets, ways) if self.group > 0 else x
        if self.discrimination is None:
            back += ways
            return y
        maps, compare = y.shape[1], self.discrimination
        closeness, other = compare(x, sets), by_autograd(lambda last: compare(last, len(last) * sets // len(x)), x)
        back.append(lambda grad: pulled_back(ways, grad[:, :maps]) + other(grad[:, maps:]))
        return torch.cat([y, closeness], dim=1)


class Generator(nn.Module):
    """Images from latents (paper section 2, table 2)."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict({str(r): GeneratorBlock(config, r) for r in config.resolutions})
        self.to_rgb = nn.ModuleDict(
            {
                str(r): EqualizedConv2d(config.fmaps_at(r), config.channels, 1, gain=1.0, equalized=config.equalized)
                for r in config.resolutions
            }
        )

    def forward(
        self, z: Tensor, labels: Tensor | None = None, *, resolution: int | None = None, alpha: float | Tensor = 1.0
    ) -> Tensor:
        """z: [N, latent_dim], of any length: it is normalised here, if the config says so. labels: one-hot
        [N, label_dim], needed if the config has labels. resolution: pixels of the images, the full resolution by
        default. alpha: weight of the newest block, 0 to 1, a number or a scalar; 0 is the network at resolution / 2,
        upsampled.

        Returns [N, C, resolution, resolution], float32, meant for [-1, 1] but not clipped.
        """
        resolution = check_stage(self.config, resolution, alpha)
        if self.config.label_dim:
            if labels is None or labels.shape != (len(z), self.config.label_dim):
                raise ValueError(f"labels: one-hot labels of shape [{len(z)}, {self.config.label_dim}] are needed")
            z = torch.cat([z, labels.to(z.dtype)], dim=1)
        _scale_all(self.blocks, self.to_rgb, resolution, alpha)
        x = pixel_norm(z) if self.config.normalize_latent else z
        older = None
        for r in self.config.resolutions:
            older, x = x, self.blocks[str(r)](x)
            if r == resolution:
                break
        images = self.to_rgb[str(resolution)](x).float()
        if resolution > 4 and is_fading(alpha):
            images = blend(nearest_up(self.to_rgb[str(resolution // 2)](older).float()), images, alpha)
        return images.tanh() if self.config.output == "tanh" else images


class Discriminator(nn.Module):
    """A score per image, higher for reals; with LSGAN 0 for reals and 1 for fakes (paper section 2, table 2)."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.from_rgb = nn.ModuleDict(
            {
                str(r): EqualizedConv2d(config.channels, config.fmaps_at(r), 1, equalized=config.equalized)
                for r in config.resolutions
            }
        )
        blocks = {str(r): DiscriminatorBlock(config, r) for r in config.resolutions if r > 4}
        self.blocks = nn.ModuleDict(blocks)
        self.head = DiscriminatorHead(config)

    def forward(
        self,
        images: Tensor,
        *,
        resolution: int | None = None,
        alpha: float | Tensor = 1.0,
        sets: int = 1,
        noise: ChannelNoise | None = None,
        back: Pullbacks | None = None,
    ) -> tuple[Tensor, Tensor]:
        """images: [N, C, resolution, resolution] in [-1, 1]. alpha: weight of the newest block, 0 to 1. sets: the batch
        is this many independent minibatches of N / sets images, one after the other; the result is as if each had
        been given alone. noise: what LSGAN puts before every convolution and the dense layer at 4x4. back: a list that
        gets how a gradient [N, 1] of the scores, of all sets or of the last, comes back to the images; not with noise.

        Returns scores [N] and label logits [N, label_dim], float32.
        """
        resolution = check_stage(self.config, resolution, alpha)
        shape = (self.config.channels, resolution, resolution)
        if images.shape[1:] != shape or len(images) % sets:
            raise ValueError(f"images: {tuple(images.shape)} is not {sets} minibatches of shape {('N', *shape)}")
        _scale_all(self.blocks, self.from_rgb, resolution, alpha, exact=[self.head])
        images = images.contiguous(memory_format=torch.channels_last)
        ways: Pullbacks = []
        x = self._from_rgb(images, ways)
        for r in reversed(self.config.resolutions):
            if 4 < r <= resolution:
                x = self.blocks[str(r)](x, noise or _unchanged, ways)
                if r == resolution and is_fading(alpha):
                    x = self._faded(images, x, r, alpha, ways)
        of_head: Pullbacks = []
        with no_autocast(x.device):  # bf16 tells scores near 40 apart by a quarter
            out = self.head(x.float(), sets, noise or _unchanged, of_head)

        def through_head(grad: Tensor) -> Tensor:
            with no_autocast(grad.device):
                return pulled_back(of_head, grad)

        if back is not None:
            back += [*ways, through_head]
        return out[:, 0], out[:, 1:]

    def _faded(self, images: Tensor, x: Tensor, r: int, alpha: float | Tensor, back: Pullbacks) -> Tensor:
        """x, of the block of resolution r, blended with the images as the block below sees them without it.

        back: until x; from then on for both ways.
        """
        new, old = back.copy(), Pullbacks()
        older = self._from_rgb(box_down(images), old)

        def pull_back(grad: Tensor) -> Tensor:
            of_new = (grad.float() * alpha).to(grad.dtype)
            return pulled_back(new, of_new) + nearest_up(pulled_back(old, grad - of_new)) / 4

        back[:] = [pull_back]
        return blend(older, x, alpha)

    def _from_rgb(self, images: Tensor, back: Pullbacks) -> Tensor:
        layer = self.from_rgb[str(images.shape[-1])]
        assert isinstance(layer, Equalized)
        return _layer(layer, nn.Identity(), images, back)

    def noise_maps(self, resolution: int) -> list[int]:
        """Maps of each tensor that `forward` at a resolution gives to its noise, in turn."""
        config = self.config
        blocks = [config.fmaps_at(r) for r in reversed(config.resolutions) if 4 < r <= resolution for _ in range(2)]
        maps = config.fmaps_at(4)
        return [*blocks, maps + (config.stddev_group > 0) + config.minibatch_kernels, maps]


def _scale_all(
    blocks: nn.ModuleDict,
    rgb: nn.ModuleDict,
    resolution: int,
    alpha: float | Tensor,
    exact: Sequence[nn.Module] = (),
) -> None:
    """Scale the layers at work at a resolution all at once; a fade needs two of `rgb`, and `exact` stays float32."""
    sizes = [r for r in map(int, rgb) if r <= resolution]
    ends = sizes[-2:] if is_fading(alpha) else sizes[-1:]
    scale_together([*(blocks[str(r)] for r in sizes if str(r) in blocks), *(rgb[str(r)] for r in ends)], exact)


def _layer(layer: Equalized, norm: nn.Module, x: Tensor, back: Pullbacks) -> Tensor:
    """A layer of D, its normalisation, and leaky ReLU."""
    back.append(layer.pull_back)
    x = layer(x)
    if not isinstance(norm, nn.Identity):
        back.append(by_autograd(norm, x))
        x = norm(x)
    y = leaky_relu_(x)
    back.append(lambda grad: leaky_relu_gradient(grad.to(y.dtype), y[-len(grad) :]))
    return y


def _unchanged(x: Tensor) -> Tensor:
    return x


def check_stage(config: NetworkConfig, resolution: int | None, alpha: float | Tensor) -> int:
    """The working resolution, the default resolved; raises ConfigError outside the network's range."""
    if resolution is None:
        resolution = config.resolution
    if resolution not in config.resolutions:
        raise ConfigError(f"resolution: {resolution} is not one of {', '.join(map(str, config.resolutions))}")
    if not isinstance(alpha, Tensor) and not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"alpha: {alpha} is not allowed; use 0 to 1")
    return resolution


def parameter_count(network: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(p.numel() for p in network.parameters())
