"""One training step (appendix A.1): D's updates, the moving average, G's update.

What either update does is recorded at its first minibatch of a phase and done again at the others: shapes and what
fades stand for a phase, and what changes from step to step (images, latents, alpha, noise) are tensors.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from progan.config import LossConfig
from progan.images import fade_reals
from progan.kernels import shared_kernels
from progan.layers import ChannelNoise
from progan.losses import Critic, lsgan_d, lsgan_g, lsgan_noise, wgan_gp_d, wgan_gp_g
from progan.pull_back import Pullbacks
from progan.run.minibatches import Reals
from progan.run.state import TrainState
from progan.run.team import ALONE, Team, micro_batches
from progan.schedule import Phase, Schedule
from progan.support.device import autocast
from progan.support.rng import keyed_generator, latents

Inputs = Mapping[str, Tensor]


class _Loss(NamedTuple):
    """Terms to minimise, and D's mean score of fakes where that is wanted too."""

    terms: dict[str, Tensor]
    d_output: Tensor | None = None


def train_step(
    state: TrainState, reals_at: Callable[[int], Reals], phase: Phase, team: Team = ALONE
) -> dict[str, Tensor]:
    """D's updates, the moving average, nimg, G's update, and the optimizers' reset at the border of a phase.

    reals_at: nimg -> float32 images [batch, C, R, R] in [-1, 1] at the phase's resolution, and one-hot labels or None;
    of a team, this process's rows of them. Returns the terms of both losses: float32 scalars, detached.
    """
    config, labels = state.config, None
    terms: dict[str, Tensor] = {}
    for optimizer, lr in ((state.d_optimizer, phase.d_lr), (state.g_optimizer, phase.g_lr)):
        for group in optimizer.param_groups:
            group["lr"] = lr
    for _ in range(config.d_steps):
        reals, labels = reals_at(state.nimg)
        terms |= _update_d(state, reals, labels, phase, team)
        state.update_ema(phase.batch)
        state.nimg += phase.batch
    terms |= _update_g(state, labels, phase, team)
    if Schedule(config.schedule, config.g.resolution).at(state.nimg).index != phase.index:
        state.reset_optimizers()
    return terms


def _update_d(state: TrainState, reals: Tensor, labels: Tensor | None, phase: Phase, team: Team) -> dict[str, Tensor]:
    config = state.config
    rows = {"reals": reals} | _rows(state, labels, phase, team, "D", sets=2)
    if config.loss.kind == "wgan-gp":
        mix = torch.rand(phase.batch, 1, 1, 1, generator=keyed_generator(config.seed, "mix", state.nimg))
        rows["mix"] = mix[team.rows(phase.batch, config)].to(reals.device)

    def loss(inputs: Inputs) -> _Loss:
        y, alpha = inputs.get("labels"), inputs.get("alpha", 1.0)
        reals = fade_reals(inputs["reals"], alpha)
        with torch.no_grad():
            fakes = state.g(inputs["z"], y, resolution=phase.resolution, alpha=alpha)
        critic, seen = _critic(state, phase, inputs)
        reals = reals.contiguous(memory_format=torch.channels_last)  # as the fakes lie
        if config.loss.kind == "wgan-gp":
            return _Loss(
                wgan_gp_d(
                    critic,
                    reals,
                    fakes,
                    inputs["mix"],
                    y,
                    gp_weight=config.loss.gp_weight,
                    gp_target=working_gp_target(config.loss, config.d.resolution, phase.resolution),
                    drift=config.loss.drift,
                    label_weight=config.loss.label_weight,
                )
            )
        terms = lsgan_d(
            critic,
            reals,
            fakes,
            y,
            fake_weight=config.loss.lsgan_fake_weight,
            label_weight=config.loss.label_weight,
        )
        return _Loss(terms, seen[0][len(fakes) :].mean())

    terms, d_output = _minimise(loss, state, state.d, rows, phase, team)
    if d_output is not None:
        team.average([d_output])
        state.d_output = state.d_output.lerp(d_output, 0.1)
    return terms


def _update_g(state: TrainState, labels: Tensor | None, phase: Phase, team: Team) -> dict[str, Tensor]:
    config = state.config
    of_kind = wgan_gp_g if config.loss.kind == "wgan-gp" else lsgan_g

    def loss(inputs: Inputs) -> _Loss:
        y, alpha = inputs.get("labels"), inputs.get("alpha", 1.0)
        fakes = state.g(inputs["z"], y, resolution=phase.resolution, alpha=alpha)
        critic, _ = _critic(state, phase, inputs)
        with _held(state.d):  # its weights' gradients would be thrown away
            return _Loss(of_kind(critic, fakes, y, label_weight=config.loss.label_weight))

    terms, _ = _minimise(loss, state, state.g, _rows(state, labels, phase, team, "G", sets=1), phase, team)
    return terms


def _rows(
    state: TrainState, labels: Tensor | None, phase: Phase, team: Team, whose: str, *, sets: int
) -> dict[str, Tensor]:
    """What this process's rows of a minibatch get: latents z [M, z_dim], labels [M, label_dim], noise [M, sets, maps].

    Drawn for the whole minibatch. noise: LSGAN's, of D seeing `sets` minibatches at once.
    """
    config, device = state.config, state.d_output.device
    mine = team.rows(phase.batch, config)
    z = latents(config.seed, f"latents of {whose}", state.nimg, phase.batch, config.g.z_dim)
    rows = {"z": z[mine].to(device)}
    if labels is not None:
        rows["labels"] = labels
    if config.loss.kind == "lsgan" and config.loss.lsgan_noise:
        generator = keyed_generator(config.seed, f"noise of {whose}'s step", state.nimg)
        maps = state.d.noise_maps(phase.resolution)
        noise = torch.cat([torch.randn(sets, phase.batch, c, generator=generator) for c in maps], dim=2)
        rows["noise"] = noise.transpose(0, 1)[mine].to(device)
    return rows


def _critic(state: TrainState, phase: Phase, inputs: Inputs) -> tuple[Critic, list[Tensor]]:
    """D at this moment of growing, with LSGAN's noise if it is wanted; and the scores [N] of each of its calls."""
    noise, seen = None, []
    if "noise" in inputs:
        strength = lsgan_noise(inputs["d_output"], state.config.loss.lsgan_noise)
        noise = ChannelNoise(strength, inputs["noise"].transpose(0, 1).flatten(0, 1))

    def critic(images: Tensor, *, sets: int = 1, back: Pullbacks | None = None) -> tuple[Tensor, Tensor]:
        alpha = inputs.get("alpha", 1.0)
        out = state.d(images, resolution=phase.resolution, alpha=alpha, sets=sets, noise=noise, back=back)
        seen.append(out[0].detach())
        return out

    return critic, seen


def _minimise(
    loss: Callable[[Inputs], _Loss],
    state: TrainState,
    network: nn.Module,
    rows: Inputs,
    phase: Phase,
    team: Team,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """One step of a network down a loss, part by part of this process's share of the minibatch.

    rows: what the loss gets of each image; it gets alpha while a block fades in, and LSGAN's d_output, too. Returns the
    whole minibatch's terms and this share's mean score of fakes.
    """
    config, device = state.config, state.d_output.device
    optimizer = state.d_optimizer if network is state.d else state.g_optimizer
    weights = list(network.parameters())
    parts = micro_batches(config, phase, team.size)
    shared = {"alpha": torch.full((), phase.alpha, device=device)} if phase.alpha < 1.0 else {}
    if "noise" in rows:
        shared["d_output"] = state.d_output

    def gradients(inputs: Inputs) -> tuple[dict[str, Tensor], Tensor | None, list[Tensor | None]]:
        with shared_kernels(), autocast(config.precision, device):
            terms, d_output = loss(inputs)
        total = reduce(torch.add, terms.values())
        total = total / len(parts) if len(parts) > 1 else total
        found = torch.autograd.grad(total, weights, allow_unused=True)
        laid: list[Tensor | None] = [
            each if each is None else _laid_as(weight, each) for weight, each in zip(weights, found, strict=True)
        ]
        return {name: term.detach() for name, term in terms.items()}, d_output, laid

    def lasting() -> Iterator[Tensor]:
        for each in (state.g, state.d):
            yield from each.parameters()
            yield from each.buffers()

    results = [
        state.recordings.run(
            phase.index, network is state.d, gradients, {name: of[part] for name, of in rows.items()} | shared, lasting
        )
        for part in parts
    ]
    for weight, *found in zip(weights, *(each for _, _, each in results), strict=True):
        weight.grad = found[0]
        for each in found[1:]:
            if each is not None:
                weight.grad.add_(each)
    means = {name: _mean([terms[name] for terms, _, _ in results]) for name in results[0][0]}
    team.average([weight.grad for weight in weights if weight.grad is not None] + list(means.values()))
    optimizer.step()
    d_outputs = [d_output for _, d_output, _ in results if d_output is not None]
    return means, _mean(d_outputs) if d_outputs else None


def _mean(scalars: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(scalars)).mean() if len(scalars) > 1 else scalars[0]


def _laid_as(weight: Tensor, gradient: Tensor) -> Tensor:
    """A gradient as its weight lies in memory: the fused Adam walks through both."""
    if gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight).copy_(gradient)


@contextmanager
def _held(network: nn.Module) -> Iterator[None]:
    """Inside, no gradients of a network's weights are wanted."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def working_gp_target(loss: LossConfig, full: int, resolution: int) -> float:
    """The penalty's target in pixels of the resolution at work.

    Seen from the full resolution, a gradient spreads over (full / resolution)^2 pixels for each one at work, and its
    norm shrinks by full / resolution. So the official penalty, taken there, is this one with a larger target.
    """
    return loss.gp_target * (full / resolution if loss.gp_norm_at == "full" else 1.0)
