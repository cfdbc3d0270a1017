"""Every metric in one shape, by name."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from progan.metrics.feature_networks import NetworkName
from progan.metrics.features import (
    FeatureCollector,
    FeatureProtocol,
    frechet_distance,
    frechet_spread,
    inception_score,
    kernel_distance,
)
from progan.metrics.protocol import Collector, Protocol, Statistics
from progan.metrics.sliced_wasserstein import COARSEST, SwdCollector, SwdProtocol, swd_spread, swd_values
from progan.metrics.structural_similarity import MsSsimCollector, MsSsimProtocol, mean_and_error
from progan.support.config_io import split_names
from progan.support.errors import ConfigError

Values = dict[str, float]


@dataclass(frozen=True)
class Metric:
    """One metric with its protocol.

    is_distance: whether it compares fakes with reals; its noise floor is then the distance of reals to other reals.
    Else it is a figure of one set, and the reals' own figure is what to compare with. spread: what the number behind
    the ± is. seed: of what is random beside the protocol, KID's subsets and the inception score's parts. smallest:
    pixels of a side that it needs.
    """

    name: str
    protocol: Protocol
    size: int
    is_distance: bool
    spread: str
    seed: int = 0
    smallest: ClassVar[int] = 4

    @property
    def reals_needed(self) -> int:
        """Images that a data set must hold: a distance's noise floor takes others, at least half as many again."""
        # So many are enough to see the floor (it is a little higher then), and 30,000 images are for SWD's 16,384.
        return self.size + self.size // 2 if self.is_distance else self.size

    def collector(
        self, role: str, device: torch.device, images: int | None = None, against: Statistics | None = None
    ) -> Collector:
        """For one set of images; role: "fakes", "reals" or "floor"; against: the reals' statistics, for the spread."""
        return self._collector(images or self.size, role, device, against)

    def _collector(self, images: int, role: str, device: torch.device, against: Statistics | None) -> Collector:
        raise NotImplementedError

    def compare(self, fakes: Statistics, reals: Statistics) -> tuple[Values, Values]:
        """Values and their spread, by level or as {"": value}."""
        raise NotImplementedError


class _Swd(Metric):
    protocol: SwdProtocol
    smallest = COARSEST

    def _collector(self, images: int, role: str, device: torch.device, against: Statistics | None) -> Collector:
        return SwdCollector(replace(self.protocol, images=images), role, device, against)

    def compare(self, fakes: Statistics, reals: Statistics) -> tuple[Values, Values]:
        return swd_values(fakes, reals), swd_spread(fakes) if "parts" in fakes else {}


class _MsSsim(Metric):
    protocol: MsSsimProtocol

    def _collector(self, images: int, role: str, device: torch.device, against: Statistics | None) -> Collector:
        return MsSsimCollector(replace(self.protocol, pairs=images // 2), device)

    def compare(self, fakes: Statistics, reals: Statistics) -> tuple[Values, Values]:
        mean, error = mean_and_error(fakes["pairs"])
        return {"": mean}, {"": error}


@dataclass(frozen=True)
class _Features(Metric):
    protocol: FeatureProtocol
    weights: Path | None = None

    def _collector(self, images: int, role: str, device: torch.device, against: Statistics | None) -> Collector:
        return FeatureCollector(replace(self.protocol, images=images), device, self.weights)


class _Fid(_Features):
    def compare(self, fakes: Statistics, reals: Statistics) -> tuple[Values, Values]:
        a, b = fakes["features"], reals["features"]
        return {"": frechet_distance(a, b)}, {"": frechet_spread(a, b)}


class _Kid(_Features):
    def compare(self, fakes: Statistics, reals: Statistics) -> tuple[Values, Values]:
        mean, std = kernel_distance(fakes["features"], reals["features"], seed=self.seed)
        return {"": 1e3 * mean}, {"": 1e3 * std}


class _InceptionScore(_Features):
    def compare(self, fakes: Statistics, reals: Statistics) -> tuple[Values, Values]:
        mean, std = inception_score(fakes["logits"], seed=self.seed)
        return {"": mean}, {"": std}


OF_FEATURES = ("fid", "kid", "is")
NEIGHBOURS = "neighbours"
NAMES = ("swd", "ms_ssim", *OF_FEATURES, *(f"{name}_efficientnet_lite0" for name in OF_FEATURES), NEIGHBOURS)
SWD = SwdProtocol()
TITLES = {"swd": "SWD x1e3", "ms_ssim": "MS-SSIM"}


def choose(names: str, *, images: int | None = None, seed: int = 0, weights: Path | None = None) -> list[Metric]:
    """The metrics of these names, "swd,ms_ssim", each once.

    images: number of images of each set, by default the protocol's own: 16,384 for SWD, 20,000 (10,000 pairs) for
    MS-SSIM, 50,000 for inception, 10,000 for efficientnet_lite0. seed: of patches, directions and subsets. weights: a
    file of the inception network, for fid, kid and is. "neighbours" needs the training images themselves, and is left
    to others. Raises ConfigError for an unknown name, too small a number, or weights that no metric asks for.
    """
    wanted = split_names(names)
    unknown = [name for name in wanted if name not in NAMES]
    if unknown or not wanted:
        raise ConfigError(f"--metrics: {', '.join(unknown) or 'none'} not known; use some of {', '.join(NAMES)}")
    if images is not None and images < 16:
        raise ConfigError(f"--images: {images} are too few to measure anything; give 16 or more")
    if weights is not None and not {*OF_FEATURES} & {*wanted}:
        raise ConfigError(f"--inception-weights: is for fid, kid and is, not for {', '.join(wanted)}; leave it out")
    return [_metric(name, images, seed, weights) for name in wanted if name != NEIGHBOURS]


def value_title(metric: str, level: str = "") -> str:
    """What a value of a metric is called where people read: 'SWD x1e3 32', 'MS-SSIM', 'fid'."""
    title = TITLES.get(metric, f"{metric} x1e3" if metric.startswith("kid") else metric)
    return f"{title} {level}".rstrip()


def _metric(name: str, images: int | None, seed: int, weights: Path | None) -> Metric:
    if name == "swd":
        swd = replace(SWD, images=images or SWD.images, seed=seed)
        return _Swd(name, swd, swd.images, True, "standard error over 8 parts of the fakes")
    if name == "ms_ssim":
        pairs = MsSsimProtocol(pairs=images // 2 if images else MsSsimProtocol.pairs)
        return _MsSsim(name, pairs, 2 * pairs.pairs, False, "standard error over pairs")
    kind, _, offline = name.partition("_")
    network: NetworkName = "efficientnet_lite0" if offline else "inception"
    protocol = FeatureProtocol(network=network, images=images or (10_000 if offline else 50_000))
    spread = {
        "fid": "standard error over 8 parts of the fakes",
        "kid": "deviation over 100 subsets",
        "is": "deviation over 10 splits",
    }[kind]
    cls = {"fid": _Fid, "kid": _Kid, "is": _InceptionScore}[kind]
    return cls(name, protocol, protocol.images, kind != "is", spread, seed, None if offline else weights)
