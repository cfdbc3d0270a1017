"""What a run starts from in place of random weights: an import, or a kept moment of another run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from progan.config import DiscriminatorConfig, GeneratorConfig, TrainConfig
from progan.networks import Discriminator, Generator
from progan.run.state import TrainState, checkpoints, nimg_of, read_checkpoint
from progan.schedule import Schedule
from progan.support.config_io import from_json
from progan.support.errors import ConfigError, RunError
from progan.support.run_files import RunFolder
from progan.weights import load_networks

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Start:
    """Networks to go on from: weights of "g", "d" and "generator" (the moving average), and their configurations.

    where: file or folder, for messages; resolution: pixels up to which they have learned.
    """

    where: Path
    weights: Mapping[str, Weights]
    g: GeneratorConfig
    d: DiscriminatorConfig
    resolution: int


def read_start(source: Path, nimg: int | None = None) -> Start:
    """The networks of a run, at a kept moment or the newest, or of a folder made by `progan import`.

    Raises RunError when there are none, they are damaged, or nothing was kept at `nimg` or after.
    """
    if not RunFolder(source).config.exists():
        if nimg is not None:
            raise RunError(f"{source}: holds no run to choose a moment of; leave out --from-kimg")
        networks = load_networks(source)
        weights = {name: network.state_dict() for name, network in networks.items()}
        g, d = networks["g"].config, networks["d"].config
        return Start(source, weights, g, d, g.resolution)
    path = kept_checkpoint(source, nimg)
    record = read_checkpoint(path)
    config = from_json(TrainConfig, json.loads(record["config"]), str(path))
    last = min(record["nimg"], config.schedule.total_nimg - 1)
    phase = Schedule(config.schedule, config.g.resolution).at(max(0, last))
    grown = phase.resolution // (2 if phase.index % 2 else 1)  # a block that is fading in has not learned yet
    weights = {"g": record["g"], "d": record["d"], "generator": record["g_ema"]}
    return Start(path, weights, config.g, config.d, grown)


def kept_checkpoint(run: Path, nimg: int | None = None) -> Path:
    """The newest checkpoint of a run, or the first at `nimg` or after; RunError says which moments were kept."""
    kept = {nimg_of(path): path for path in checkpoints(RunFolder(run).checkpoints)}
    later = [path for at, path in kept.items() if nimg is None or at >= nimg]
    if not kept:
        raise RunError(f"{run}: holds no checkpoint; give the folder of a run that has trained")
    if nimg is None:
        return later[-1]
    if not later:
        moments = ", ".join(f"{at / 1000:g}" for at in kept)
        raise RunError(f"{run}: kept no moment from {nimg / 1000:g} kimg on; --from-kimg can reach {moments}")
    return later[0]


def branch_point(run: Path, nimg: int | None, config: TrainConfig) -> Path:
    """The kept checkpoint from which a branch of another config begins; ConfigError if nothing is left to train."""
    path, total = kept_checkpoint(run, nimg), config.schedule.total_nimg
    if nimg_of(path) >= total:
        raise ConfigError(
            f"total_nimg: {total / 1000:g} kimg are over where the branch begins at {nimg_of(path) / 1000:g}; pass a"
            " larger --total-kimg, or an earlier --from-kimg"
        )
    return path


def start_from(state: TrainState, start: Start) -> list[str]:
    """Take over all weights that fit, at the phase in which they are stable; says what begins anew, in sentences.

    Networks may differ in resolution, channels and labels. Raises ConfigError when they differ in anything else.
    """
    config = state.config
    anew: set[str] = set()
    networks: list[tuple[str, Any, Any]] = [("g", state.g, start.g), ("d", state.d, start.d)]
    for name, own, theirs in [*networks, ("generator", state.g_ema, start.g)]:
        alike = {field: getattr(own.config, field) for field in ("resolution", "channels", "label_dim")}
        if isinstance(theirs, GeneratorConfig):
            alike["latent_dim"] = own.config.latent_dim if own.config.z_dim == theirs.z_dim else theirs.latent_dim
        if replace(theirs, **alike) != own.config:
            raise ConfigError(f"init: {start.where}: {name}.safetensors is of {theirs}, the run of {own.config}")
        anew |= _take_over(own, start.weights[name])
    resolution = min(config.g.resolution, start.resolution)
    state.nimg = Schedule(config.schedule, config.g.resolution).stable_from_nimg(resolution)
    notes = [f"starts from {start.where}, at {resolution}x{resolution} of {config.g.resolution}x{config.g.resolution}"]
    return notes + [f"begins anew: {what}" for what in sorted(anew)]


def _take_over(own: Generator | Discriminator, theirs: Weights) -> set[str]:
    """Copy what fits; returns, in words, what does not."""
    anew, state = set(), own.state_dict()  # which shares the network's memory
    for name, value in state.items():
        old = theirs.get(name)
        if old is not None and old.shape == value.shape:
            value.copy_(old)
        elif old is None:
            anew.add(f"the block at {name.split('.')[1]}x{name.split('.')[1]}")
        elif name.startswith(("to_rgb", "from_rgb")):
            anew.add("the colour layers, for the channels differ")
        elif isinstance(own, Generator):  # the dense layer at 4x4: [maps, latent + labels]
            latent, longer = own.config.z_dim, sqrt(value.shape[1] / old.shape[1])
            # The function stays: scaling at run time follows the length, and so does each component once normalised.
            factor = longer ** (own.config.equalized - own.config.normalize_latent)
            value[:, :latent] = old[:, :latent] * factor
            anew.add("what the networks know of labels")
        else:  # the last layer of D: [1 + labels, ...], of which the first is the score
            value[:1] = old[:1]
            anew.add("what the networks know of labels")
    return anew
