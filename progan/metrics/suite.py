"""Every metric in one shape, by name."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
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
from progan.metrics.neighbours import K_NEAREST, covered
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
        """Images that a data set must hold."""
        return self.size + self.size // 2 if self.is_distance else self.size

    def reals_taken(self, there: int) -> int:
        """How many of a data set's images are the reals."""
        return self.size

    def floor_taken(self, there: int) -> int:
        """How many others are measured against the reals for the noise floor; 0 for none.

        Half as many as the reals are enough to see it (it is a little higher then): 30,000 images do for SWD.
        """
        reals = self.reals_taken(there)
        others = min(self.size, there - reals)
        return others if self.is_distance and others >= reals // 2 else 0

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
    """Fakes as many as the protocol says, against as many reals or all that there are: 30,000 of CelebA-HQ."""

    protocol: FeatureProtocol
    weights: Path | None = None

    @property
    def reals_needed(self) -> int:
        return K_NEAREST + 1

    def reals_taken(self, there: int) -> int:
        return min(self.size, there)

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
        if len(fakes["logits"]) < SPLITS:  # a small data set's own score
            return {}, {}
        mean, std = inception_score(fakes["logits"], splits=SPLITS, seed=self.seed)
        return {"": mean}, {"": std}


class _Precision(_Features):
    def compare(self, fakes: Statistics, reals: Statistics) -> tuple[Values, Values]:
        return _share(covered(fakes["features"], reals["features"]))


class _Recall(_Features):
    def compare(self, fakes: Statistics, reals: Statistics) -> tuple[Values, Values]:
        return _share(covered(reals["features"], fakes["features"]))


def _share(inside: np.ndarray) -> tuple[Values, Values]:
    share = float(inside.mean())
    return {"": share}, {"": math.sqrt(share * (1 - share) / len(inside))}


SPLITS = 10
OF_INCEPTION = ("fid", "kid", "is")
OF_FEATURES: Mapping[str, tuple[type[_Features], NetworkName, str]] = {
    "fid": (_Fid, "inception", "standard error over 8 parts of the fakes"),
    "kid": (_Kid, "inception", "deviation over 100 subsets"),
    "is": (_InceptionScore, "inception", f"deviation over {SPLITS} splits"),
    "precision": (_Precision, "vgg16", "standard error over fakes"),
    "recall": (_Recall, "vgg16", "standard error over reals"),
}
NEIGHBOURS = "neighbours"
NAMES = ("swd", "ms_ssim", *OF_FEATURES, *(f"{name}_efficientnet_lite0" for name in OF_FEATURES), NEIGHBOURS)
SWD = SwdProtocol()
TITLES = {"swd": "SWD x1e3", "ms_ssim": "MS-SSIM"}


def choose(
    names: str, *, images: int | None = None, seed: int = 0, weights: Path | None = None, flag: str = "--images"
) -> list[Metric]:
    """The metrics of these names, "swd,ms_ssim", each once.

    images: number of images of each set, by default the protocol's own: 16,384 for SWD, 20,000 (10,000 pairs) for
    MS-SSIM, 50,000 for inception and vgg16, 10,000 for efficientnet_lite0. seed: of patches, directions and subsets.
    weights: a file of the inception network, for fid, kid and is. flag: what the number is called where it was given.
    "neighbours" needs the training images themselves, and is left to others. Raises ConfigError for an unknown name,
    too small a number, or weights that no metric asks for.
    """
    wanted = split_names(names)
    unknown = [name for name in wanted if name not in NAMES]
    if unknown or not wanted:
        raise ConfigError(f"--metrics: {', '.join(unknown) or 'none'} not known; use some of {', '.join(NAMES)}")
    if images is not None and images < 16:
        raise ConfigError(f"{flag}: {images} are too few to measure anything; give 16 or more")
    if weights is not None and not {*OF_INCEPTION} & {*wanted}:
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
    cls, published, spread = OF_FEATURES[kind]
    network: NetworkName = "efficientnet_lite0" if offline else published
    protocol = FeatureProtocol(network=network, images=images or (10_000 if offline else 50_000))
    return cls(name, protocol, protocol.images, kind != "is", spread, seed, weights if network == "inception" else None)
