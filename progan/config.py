"""Frozen configurations: the Python API, the command line and the saved JSON are these same fields."""

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tyro.constructors import PrimitiveConstructorSpec

from progan.errors import ConfigError

C = TypeVar("C")


def check_resolution(name: str, resolution: int) -> None:
    """Raise ConfigError unless `resolution` is a power of two from 4 up."""
    if resolution < 4 or resolution & (resolution - 1):
        raise ConfigError(f"{name}: {resolution} is not a power of two from 4 up; use 4, 8, 16, 32, 64, ...")


def check_at_least(low: float, **fields: float) -> None:
    """Raise ConfigError for a field below `low`."""
    for name, value in fields.items():
        if not value >= low:
            raise ConfigError(f"{name}: {value} is not allowed; use {low} or more")


def parse_per_resolution(text: str, kind: type) -> dict[int, Any]:
    """Read '16' or '4:128,32:64': a value from each resolution up, as the smallest one that applies."""
    try:
        pairs = [entry.split(":") for entry in text.split(",")]
        if len(pairs) == 1 and len(pairs[0]) == 1:
            return {4: kind(pairs[0][0])}
        return {int(resolution): kind(value) for resolution, value in pairs}
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor a list such as 4:128,32:64") from None


def print_per_resolution(values: Mapping[int, Any]) -> str:
    """The inverse of parse_per_resolution."""
    return ",".join(f"{resolution}:{value}" for resolution, value in values.items())


def _per_resolution(kind: type) -> PrimitiveConstructorSpec:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="N|RES:N,...",
        instance_from_str=lambda args: parse_per_resolution(args[0], kind),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [print_per_resolution(value)],
    )


IntAt = Annotated[dict[int, int], _per_resolution(int)]
FloatAt = Annotated[dict[int, float], _per_resolution(float)]


def value_at(values: Mapping[int, Any], resolution: int) -> Any:
    """The entry of the largest key that is not above `resolution`."""
    return values[max(key for key in values if key <= resolution)]


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
    norm: Literal["pixel", "none"] = "pixel"
    """Normalisation after each activation (paper 4.2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim is not None:
            check_at_least(1, latent_dim=self.latent_dim)
        check_choices(self)

    @property
    def z_dim(self) -> int:
        """Components of the latent, the default resolved."""
        return self.fmaps(0) if self.latent_dim is None else self.latent_dim


@dataclass(frozen=True)
class DiscriminatorConfig(NetworkConfig):
    """The discriminator (paper sections 2 and 3, appendix A.1)."""

    stddev_group: int = 4
    """Images per minibatch-stddev group (paper section 3); 0 leaves the layer out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, stddev_group=self.stddev_group)


@dataclass(frozen=True)
class ScheduleConfig:
    """Growing (paper section 2, appendix A.1), in real images shown."""

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
        for name in ("batch", "g_lr", "d_lr"):
            values = getattr(self, name)
            if 4 not in values:
                raise ConfigError(f"{name}: {print_per_resolution(values)} says nothing about 4x4; begin with 4:...")
            for resolution, value in values.items():
                check_resolution(name, resolution)
                if not 0 < value < math.inf or (name == "batch" and value != int(value)):
                    raise ConfigError(f"{name}: {value} is not allowed; use a number above 0")


@dataclass(frozen=True)
class LossConfig:
    """WGAN-GP with drift, and AC-GAN terms where there are labels (appendix A.1, B)."""

    gp_weight: float = 10.0
    """Weight of the gradient penalty."""
    gp_target: float = 1.0
    """Target of the gradient norm (CIFAR-10 runs: 750)."""
    gp_norm_at: Literal["full", "working"] = "full"
    """Pixels in which the gradient norm is measured while growing: of the full resolution, as the official
    TensorFlow code does, or of the resolution at work, as the Theano code does. Equal once grown."""
    drift: float = 0.001
    """Weight of the mean squared score of reals."""
    label_weight: float = 1.0
    """Weight of the label cross-entropy."""

    def __post_init__(self) -> None:
        check_at_least(0, gp_weight=self.gp_weight, drift=self.drift, label_weight=self.label_weight)
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
    d_steps: int = 1
    """D updates per G update."""
    mirror: bool = True
    """Show each real image mirrored half of the time."""
    seed: int = 0
    """Decides every random number of the run."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the convolutions; auto: bf16 where the hardware computes it fast."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps; auto takes the best there is."""
    tick_nimg: int = 1_000
    """Images between two lines of stats.jsonl."""
    snapshot_nimg: int = 20_000
    """Images between two picture grids."""
    checkpoint_nimg: int = 20_000
    """Images between two checkpoints."""
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
        check_at_least(0, metrics_images=self.metrics_images)
        for name in ("beta1", "beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not allowed; use 0 up to, not including, 1")
        if not self.adam_eps > 0:
            raise ConfigError(f"adam_eps: {self.adam_eps} is not allowed; use a number above 0")
        check_choices(self)


def check_choices(config: Any) -> None:
    """Raise ConfigError for a field outside its Literal type."""
    for name, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal and getattr(config, name) not in get_args(hint):
            allowed = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"{name}: {getattr(config, name)!r} is not allowed; use one of {allowed}")


def to_json(config: Any) -> dict[str, Any]:
    """The fields as JSON values; from_json gives the same configuration back."""
    return dataclasses.asdict(config)


def from_json(cls: type[C], values: Any, where: str = "config") -> C:
    """Build a configuration from JSON values; raises ConfigError naming a field that is unknown or of a wrong type."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {values!r} is not an object with fields")
    hints = get_type_hints(cls, include_extras=False)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; it has {', '.join(hints)}")
    return cls(**{name: _decode(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _decode(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is dict and isinstance(value, dict):
        kind = get_args(hint)[1]
        if not all(str(key).isdecimal() for key in value):
            raise ConfigError(f"{where}: {value!r} is not of type {hint}")
        return {_decode(int, int(key), where): _decode(kind, item, where) for key, item in value.items()}
    if get_origin(hint) is Literal:
        return value  # the configuration checks its own choices
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if type(value) in allowed or (type(value) is int and float in allowed):
        return value
    raise ConfigError(f"{where}: {value!r} is not of type {hint}")


def flat_fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """('g.resolution', 1024), ... for every field."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from flat_fields(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value
