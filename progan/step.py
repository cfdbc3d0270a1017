"""One training step (appendix A.1): D's updates, the moving average, G's update."""

from collections.abc import Callable

import torch
from torch import Tensor

from progan.config import LossConfig, TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.images import fade_reals, mirror, to_float
from progan.layers import ChannelNoise
from progan.losses import Critic, lsgan_d, lsgan_g, lsgan_noise, wgan_gp_d, wgan_gp_g
from progan.run.state import TrainState
from progan.run.team import ALONE, Share, Team, micro_batches
from progan.schedule import Phase, Schedule
from progan.support.device import autocast
from progan.support.rng import data_order, keyed_generator, latents

Reals = tuple[Tensor, Tensor | None]


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
    config, device = state.config, reals.device
    mine = team.rows(phase.batch, config)
    z = latents(config.seed, "latents of D", state.nimg, phase.batch, config.g.z_dim)[mine].to(device)
    mix = torch.rand(phase.batch, 1, 1, 1, generator=keyed_generator(config.seed, "mix", state.nimg))[mine].to(device)
    reals = fade_reals(reals, phase.alpha)
    d_outputs: list[Tensor] = []

    def terms_of(rows: Share) -> dict[str, Tensor]:
        y = None if labels is None else labels[rows]
        with torch.no_grad():
            fakes = state.g(z[rows], y, resolution=phase.resolution, alpha=phase.alpha)
        critic, seen = _critic(state, phase, team, rows, "noise of D's step")
        if config.loss.kind == "wgan-gp":
            return wgan_gp_d(
                critic,
                reals[rows],
                fakes,
                mix[rows],
                y,
                gp_weight=config.loss.gp_weight,
                gp_target=working_gp_target(config.loss, config.d.resolution, phase.resolution),
                drift=config.loss.drift,
                label_weight=config.loss.label_weight,
            )
        terms = lsgan_d(
            critic,
            reals[rows],
            fakes,
            y,
            fake_weight=config.loss.lsgan_fake_weight,
            label_weight=config.loss.label_weight,
        )
        d_outputs.append(seen[0][len(fakes) :].mean())
        return terms

    terms = _minimise(terms_of, state.d_optimizer, config, phase, team)
    if d_outputs:
        d_output = torch.stack(d_outputs).mean()
        team.average([d_output])
        state.d_output = state.d_output.lerp(d_output, 0.1)
    return terms


def _update_g(state: TrainState, labels: Tensor | None, phase: Phase, team: Team) -> dict[str, Tensor]:
    config, device = state.config, next(state.g.parameters()).device
    z = latents(config.seed, "latents of G", state.nimg, phase.batch, config.g.z_dim)
    z = z[team.rows(phase.batch, config)].to(device)
    loss = wgan_gp_g if config.loss.kind == "wgan-gp" else lsgan_g

    def terms_of(rows: Share) -> dict[str, Tensor]:
        y = None if labels is None else labels[rows]
        fakes = state.g(z[rows], y, resolution=phase.resolution, alpha=phase.alpha)
        critic, _ = _critic(state, phase, team, rows, "noise of G's step")
        return loss(critic, fakes, y, label_weight=config.loss.label_weight)

    state.d.requires_grad_(False)  # its weights' gradients would be thrown away
    terms = _minimise(terms_of, state.g_optimizer, config, phase, team)
    state.d.requires_grad_(True)
    return terms


def _critic(state: TrainState, phase: Phase, team: Team, rows: Share, purpose: str) -> tuple[Critic, list[Tensor]]:
    """D at this moment of growing, with LSGAN's noise if it is wanted; and the scores [N] of each of its calls.

    rows: of this process's share of the minibatch, those that D is going to see.
    """
    config, noise, seen = state.config, None, []
    if config.loss.kind == "lsgan" and config.loss.lsgan_noise:
        generator = keyed_generator(config.seed, purpose, state.nimg)
        strength = lsgan_noise(state.d_output, config.loss.lsgan_noise)
        of_all = torch.arange(phase.batch)[team.rows(phase.batch, config)][rows]
        noise = ChannelNoise(strength, generator, phase.batch, of_all)

    def critic(images: Tensor, *, sets: int = 1) -> tuple[Tensor, Tensor]:
        out = state.d(images, resolution=phase.resolution, alpha=phase.alpha, sets=sets, noise=noise)
        seen.append(out[0].detach())
        return out

    return critic, seen


def _minimise(
    terms_of: Callable[[Share], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    phase: Phase,
    team: Team,
) -> dict[str, Tensor]:
    """One step down a loss, part by part of this process's share; returns the whole minibatch's terms, detached."""
    optimizer.zero_grad(set_to_none=True)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    parts = micro_batches(config, phase, team.size)
    found: list[dict[str, Tensor]] = []
    for rows in parts:
        with autocast(config.precision, weights[0].device):
            terms = terms_of(rows)
        (torch.stack(list(terms.values())).sum() / len(parts)).backward()
        found.append({name: term.detach() for name, term in terms.items()})
    means = {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}
    team.average([weight.grad for weight in weights if weight.grad is not None] + list(means.values()))
    optimizer.step()
    return means


def working_gp_target(loss: LossConfig, full: int, resolution: int) -> float:
    """The penalty's target in pixels of the resolution at work.

    Seen from the full resolution, a gradient spreads over (full / resolution)^2 pixels for each one at work, and its
    norm shrinks by full / resolution. So the official penalty, taken there, is this one with a larger target.
    """
    return loss.gp_target * (full / resolution if loss.gp_norm_at == "full" else 1.0)


def read_reals(
    data: ImagePyramid, config: TrainConfig, phase: Phase, device: torch.device, nimg: int, team: Team = ALONE
) -> Reals:
    """The minibatch of reals at `nimg`: float32 [batch, C, R, R] in [-1, 1], one-hot labels [batch, label_dim].

    Of a team, this process's rows of both.
    """
    mine = team.rows(phase.batch, config)
    indices = data_order(config.seed, nimg, phase.batch, len(data))[mine]
    images = data.read(indices, phase.resolution)
    if config.mirror:
        flips = torch.rand(phase.batch, generator=keyed_generator(config.seed, "mirror", nimg)) < 0.5
        images = mirror(images, flips.numpy()[mine])
    labels = torch.from_numpy(data.read_labels(indices)).to(device) if config.g.label_dim else None
    return to_float(torch.from_numpy(images).to(device)), labels
