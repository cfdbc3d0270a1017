"""Frozen configurations: the Python API, the command line and the saved JSON are these same fields."""

import math
from dataclasses import dataclass, field
from typing import Literal

from progan.support.config_io import (
    FloatAt,
    IntAt,
    check_at_least,
    check_at_most,
    check_choices,
    check_per_resolution,
    check_resolution,
)
from progan.support.errors import ConfigError

# What no honest use meets.
MOST_MAPS = 2**20
MOST_NIMG = 10**12
MOST_BATCH = 2**20
MOST_THREADS = 1024


@dataclass(frozen=True)
class NetworkConfig:
    """What G and D share."""

    resolution: int = 1024
    """Full resolution in pixels, a power of two from 4 up."""
    channels: int = 3
    """Colour channels of the images, 1 to 4."""
    label_dim: int = 0
    """Number of classes; 0 trains without labels."""
    fmap_base: int = 8192
    """Feature maps at stage s are min(fmap_base / 2^s, fmap_max)."""
    fmap_max: int = 512
    """The most feature maps of any layer."""
    equalized: bool = True
    """Scale weights at run time (paper 4.1); off: the same constant is the std of the initial weights."""
    fused_scaling: bool = True
    """Resampling and convolution as one strided convolution: G the same function, D pools before its activation."""

    def __post_init__(self) -> None:
        check_resolution("resolution", self.resolution)
        if not 1 <= self.channels <= 4:
            raise ConfigError(f"channels: {self.channels} is not allowed; use 1 to 4")
        check_at_least(0, label_dim=self.label_dim)
        check_at_least(1, fmap_base=self.fmap_base, fmap_max=self.fmap_max)
        check_at_most(MOST_MAPS, fmap_base=self.fmap_base, fmap_max=self.fmap_max, label_dim=self.label_dim)

    def fmaps(self, stage: int) -> int:
        """Feature maps of a stage; the block at resolution 2^r works with fmaps(r - 1) maps (appendix A.1)."""
        return max(1, min(self.fmap_base // 2**stage, self.fmap_max))

    def fmaps_at(self, resolution: int) -> int:
        """Feature maps of the block at `resolution`."""
        return self.fmaps(resolution.bit_length() - 2)

    @property
    def resolutions(self) -> list[int]:
        """4, 8, ..., full resolution."""
        return [2**r for r in range(2, self.resolution.bit_length())]


@dataclass(frozen=True)
class GeneratorConfig(NetworkConfig):
    """The generator (paper section 2, 4.2, appendix A.1)."""

    latent_dim: int | None = None
    """Components of the latent; None: fmaps(0)."""
    normalize_latent: bool = True
    """Scale the latent to unit RMS (appendix A.1)."""
    norm: Literal["pixel", "batch", "none"] = "pixel"
    """Pixelwise normalisation after each activation (paper 4.2), or batch normalisation before it (table 1, a-c)."""
    activation: Literal["leaky", "relu"] = "leaky"
    """Leaky ReLU with slope 0.2, or ReLU (table 1, a-c)."""
    output: Literal["linear", "tanh"] = "linear"
    """What the images go through last (tanh: table 1, a-c)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim is not None:
            check_at_least(1, latent_dim=self.latent_dim)
            check_at_most(MOST_MAPS, latent_dim=self.latent_dim)
        check_choices(self)

    @property
    def z_dim(self) -> int:
        """Components of the latent, the default resolved."""
        return self.fmaps(0) if self.latent_dim is None else self.latent_dim


@dataclass(frozen=True)
class DiscriminatorConfig(NetworkConfig):
    """The discriminator (paper sections 2 and 3, appendix A.1)."""

    stddev_group: int = 4
    """Images per minibatch-stddev group (paper section 3), a minibatch of fewer is one group; 0 leaves it out."""
    minibatch_kernels: int = 0
    """Kernels of minibatch discrimination (table 1, e*: 100), at the place of minibatch stddev; 0 leaves it out."""
    minibatch_dims: int = 5
    """Dimensions of each of these kernels."""
    norm: Literal["layer", "none"] = "none"
    """Layer normalisation before the activations, except the first (table 1, a-c)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, stddev_group=self.stddev_group, minibatch_kernels=self.minibatch_kernels)
        check_at_least(1, minibatch_dims=self.minibatch_dims)
        check_at_most(MOST_MAPS, minibatch_kernels=self.minibatch_kernels, minibatch_dims=self.minibatch_dims)
        check_choices(self)


@dataclass(frozen=True)
class ScheduleConfig:
    """Growing (paper section 2, appendix A.1), in real images shown."""

    growing: bool = True
    """Grow from 4x4; off: the whole network from the start (table 1, a)."""
    stable_nimg: int = 600_000
    """Images at each resolution before the next block enters (paper: 800,000)."""
    fade_nimg: int = 600_000
    """Images during which a new block fades in (paper: 800,000); 0: it enters at once."""
    total_nimg: int = 12_000_000
    """Images of the whole run."""
    batch: IntAt = field(default_factory=lambda: {4: 16})
    """Images per minibatch, from a resolution up."""
    g_lr: FloatAt = field(default_factory=lambda: {4: 0.001})
    """Adam's learning rate for G, from a resolution up."""
    d_lr: FloatAt = field(default_factory=lambda: {4: 0.001})
    """Adam's learning rate for D, from a resolution up."""

    def __post_init__(self) -> None:
        check_at_least(0, stable_nimg=self.stable_nimg, fade_nimg=self.fade_nimg)
        check_at_least(1, total_nimg=self.total_nimg)
        check_at_most(MOST_NIMG, stable_nimg=self.stable_nimg, fade_nimg=self.fade_nimg, total_nimg=self.total_nimg)
        if self.growing and self.stable_nimg + self.fade_nimg == 0:
            raise ConfigError("stable_nimg, fade_nimg: both are 0; give one of them images, or turn growing off")
        for name in ("batch", "g_lr", "d_lr"):
            values = getattr(self, name)
            check_per_resolution(name, values)
            for value in values.values():
                if not 0 < value < math.inf or (name == "batch" and value != int(value)):
                    raise ConfigError(f"{name}: {value} is not allowed; use a number above 0")
        check_at_most(MOST_BATCH, batch=max(self.batch.values()))


@dataclass(frozen=True)
class LossConfig:
    """WGAN-GP with drift, or LSGAN, and AC-GAN terms where there are labels (appendix A.1, B)."""

    kind: Literal["wgan-gp", "lsgan"] = "wgan-gp"
    """Which of the two; the fields of the other do nothing."""
    gp_weight: float = 10.0
    """Weight of the gradient penalty."""
    gp_target: float = 1.0
    """Target of the gradient norm (CIFAR-10 runs: 750)."""
    gp_norm_at: Literal["full", "working"] = "full"
    """Pixels in which the gradient norm is measured while growing: of the full resolution, as both official codes
    do, or of the resolution at work. Equal once grown."""
    drift: float = 0.001
    """Weight of the mean squared score of reals."""
    lsgan_fake_weight: float = 0.1
    """LSGAN: weight of the fakes in D's loss."""
    lsgan_noise: float = 0.2
    """LSGAN: strength of the multiplicative noise in D (appendix B); 0: none."""
    label_weight: float = 1.0
    """Weight of the label cross-entropy."""

    def __post_init__(self) -> None:
        check_at_least(0, gp_weight=self.gp_weight, drift=self.drift, label_weight=self.label_weight)
        check_at_least(0, lsgan_fake_weight=self.lsgan_fake_weight, lsgan_noise=self.lsgan_noise)
        if not self.gp_target > 0:
            raise ConfigError(f"gp_target: {self.gp_target} is not allowed; use a number above 0")
        check_choices(self)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes. The data set decides channels and labels."""

    g: GeneratorConfig = field(default_factory=GeneratorConfig)
    d: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    beta1: float = 0.0
    """Adam's beta1."""
    beta2: float = 0.99
    """Adam's beta2."""
    adam_eps: float = 1e-8
    """Adam's epsilon."""
    ema_decay: float = 0.999
    """Decay of G's moving average, per D step."""
    ema_rampup: float = 0.0
    """Most half-life of that average as a share of the images since the newest block entered: a short memory while
    the block is new (StyleGAN2-ADA: 0.05 of all images); 0: the same decay always (paper)."""
    optimizer_reset: Literal["both", "g", "d", "none"] = "both"
    """Whose Adam forgets its moments when a block enters and when it is in (appendix A.1: both)."""
    d_steps: int = 1
    """D updates per G update."""
    labels: Literal["use", "ignore"] = "use"
    """Whether classes of the data are learned (AC-GAN, appendix A.1), or left aside."""
    mirror: bool = True
    """Show each real image mirrored half of the time."""
    seed: int = 0
    """Decides every random number of the run."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Number format of the convolutions; auto: bf16 where the hardware computes it fast. fp32 is all of float32 on GPUs
    too; tf32: NVIDIA's GPUs multiply ten bits of it."""
    deterministic: bool = False
    """On a GPU, the same bits from every start on that kind of GPU, at some speed; a CPU gives them anyway."""
    micro_batch: IntAt = field(default_factory=lambda: {4: 0})
    """Most images at once, from a resolution up; gradients of the parts are added, in less memory. 0: all at once."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps; auto takes the best there is."""
    threads: int = 0
    """Threads that a CPU computes with; 0: one or all, by what a few steps cost with either when the run begins."""
    tick_nimg: int = 1_000
    """Images between two lines of stats.jsonl."""
    snapshot_nimg: int = 20_000
    """Images between two picture grids."""
    checkpoint_nimg: int = 20_000
    """Images between two checkpoints."""
    keep_every_nimg: int = 0
    """Images between two checkpoints that are kept for good, to go back to; 0: only the newest two are there."""
    metrics: str = ""
    """Metrics of the moving average, measured while training, such as swd,ms_ssim; none by default."""
    metrics_nimg: int = 100_000
    """Images between two measurements."""
    metrics_images: int = 0
    """Images of each measured set; 0: each metric's own number, 16384 for swd."""

    def __post_init__(self) -> None:
        for name in ("resolution", "channels", "label_dim"):
            if getattr(self.g, name) != getattr(self.d, name):
                raise ConfigError(f"g.{name}, d.{name}: {getattr(self.g, name)} and {getattr(self.d, name)} must agree")
        check_at_least(
            1,
            d_steps=self.d_steps,
            tick_nimg=self.tick_nimg,
            snapshot_nimg=self.snapshot_nimg,
            checkpoint_nimg=self.checkpoint_nimg,
            metrics_nimg=self.metrics_nimg,
        )
        check_at_least(0, keep_every_nimg=self.keep_every_nimg, threads=self.threads)
        check_at_most(MOST_THREADS, threads=self.threads)
        check_at_most(MOST_BATCH, d_steps=self.d_steps)
        check_at_least(0, metrics_images=self.metrics_images, micro_batch=min(self.micro_batch.values(), default=0))
        check_per_resolution("micro_batch", self.micro_batch)
        for name in ("beta1", "beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not allowed; use 0 up to, not including, 1")
        check_at_least(0, ema_rampup=self.ema_rampup)
        if not self.adam_eps > 0:
            raise ConfigError(f"adam_eps: {self.adam_eps} is not allowed; use a number above 0")
        check_choices(self)
