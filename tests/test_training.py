"""One training step against a slow re-implementation of the paper, and the loop around it."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import progan
import progan.run.minibatches
import progan.step
import progan.training
from progan.config import DiscriminatorConfig, GeneratorConfig, LossConfig, TrainConfig
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.images import to_float
from progan.run.minibatches import Minibatches, read_reals
from progan.run.signals import stop_signals
from progan.run.state import TrainState, checkpoints, nimg_of
from progan.run.team import Team
from progan.schedule import Phase, Schedule
from progan.step import train_step, working_gp_target
from progan.support.errors import ConfigError, DataError, RunError
from progan.support.rng import data_order, keyed_generator, latents
from progan.training import crossed, fit_to_data, train
from progan.weights import load_network, save_network
from tests.devices import looser

CPU = torch.device("cpu")
Weights = dict[str, Tensor]


# ---------------------------------------------------------------------------------------------------------------------
# The paper's step at 8x8 of 16x16, in float64 and with the plainest operations


def scaled(x: Tensor, weights: Weights, name: str, gain: float = sqrt(2), equalized: bool = True) -> Tensor:
    """Weight x runtime scale, without the bias (4.1)."""
    w = weights[f"{name}.weight"]
    w = w * gain / sqrt(w[0].numel()) if equalized else w
    return x @ w.T if w.ndim == 2 else torch.nn.functional.conv2d(x, w, padding=w.shape[-1] // 2)


def biased(x: Tensor, weights: Weights, name: str) -> Tensor:
    b = weights[f"{name}.bias"]
    return x + (b if x.ndim == 2 else b[:, None, None])


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def normalised(x: Tensor) -> Tensor:
    return x / torch.sqrt((x**2).mean(1, keepdim=True) + 1e-8)


def up(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def down(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def batch_normalised(x: Tensor, w: Weights, name: str) -> Tensor:
    """Over the minibatch and all pixels, as while training."""
    x = (x - x.mean((0, 2, 3), keepdim=True)) / torch.sqrt(x.var((0, 2, 3), correction=0, keepdim=True) + 1e-4)
    return x * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def layer_normalised(x: Tensor, w: Weights, name: str) -> Tensor:
    """Image by image."""
    rows = [(one - one.mean()) / torch.sqrt(((one - one.mean()) ** 2).mean() + 1e-4) for one in x]
    bias = w[f"{name}.bias"]
    return torch.stack(rows) * w[f"{name}.gain"] + (bias if x.ndim == 2 else bias[:, None, None])


def slow_g(w: Weights, z: Tensor, labels: Tensor | None, alpha: float, config: GeneratorConfig) -> Tensor:
    def finished(x: Tensor, name: str, norm: str) -> Tensor:
        x = batch_normalised(x, w, norm) if config.norm == "batch" else biased(x, w, name)
        x = lrelu(x) if config.activation == "leaky" else torch.where(x > 0, x, 0.0)
        return normalised(x) if config.norm == "pixel" else x

    conv = partial(scaled, weights=w, equalized=config.equalized)
    x = z if labels is None else torch.cat([z, labels], 1)
    x = normalised(x) if config.normalize_latent else x
    x = conv(x, name="blocks.4.dense", gain=sqrt(2) / 4).view(len(z), -1, 4, 4)
    x = finished(x, "blocks.4.dense", "blocks.4.norm0")
    x = finished(conv(x, name="blocks.4.conv1"), "blocks.4.conv1", "blocks.4.norm1")
    old = biased(conv(x, name="to_rgb.4", gain=1.0), w, "to_rgb.4")
    x = finished(conv(up(x), name="blocks.8.conv0"), "blocks.8.conv0", "blocks.8.norm0")
    x = finished(conv(x, name="blocks.8.conv1"), "blocks.8.conv1", "blocks.8.norm1")
    new = biased(conv(x, name="to_rgb.8", gain=1.0), w, "to_rgb.8")
    images = (1 - alpha) * up(old) + alpha * new
    return torch.tanh(images) if config.output == "tanh" else images


def slow_d(
    w: Weights,
    images: Tensor,
    alpha: float,
    config: DiscriminatorConfig,
    noise: Callable[[Tensor], Tensor] | None,
    sets: int = 1,
) -> tuple[Tensor, Tensor]:
    def finished(x: Tensor, name: str, norm: str) -> Tensor:
        return lrelu(layer_normalised(x, w, norm) if config.norm == "layer" else biased(x, w, name))

    conv = partial(scaled, weights=w, equalized=config.equalized)
    noise = noise or (lambda x: x)
    x = lrelu(biased(conv(images, name="from_rgb.8"), w, "from_rgb.8"))
    x = finished(conv(noise(x), name="blocks.8.conv0"), "blocks.8.conv0", "blocks.8.norm0")
    x = conv(noise(x), name="blocks.8.conv1")
    # The fused form pools before bias and activation, the paper's after.
    last = partial(finished, name="blocks.8.conv1", norm="blocks.8.norm1")
    x = last(down(x)) if config.fused_scaling else down(last(x))
    old = lrelu(biased(conv(down(images), name="from_rgb.4"), w, "from_rgb.4"))
    x = features = (1 - alpha) * old + alpha * x
    if config.stddev_group:
        numbers = []
        for one in x.chunk(sets):
            m = max(1, len(one) // config.stddev_group)
            for i in range(len(one)):
                members = one[i % m :: m]  # image i goes with i + M, i + 2M, ...
                numbers.append((((members - members.mean(0)) ** 2).mean(0) + 1e-8).sqrt().mean())
        x = torch.cat([x, torch.stack(numbers).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)], 1)
    if config.minibatch_kernels:
        points = conv(features.flatten(1), name="head.discrimination.project", gain=1.0)
        points = points.view(len(x), config.minibatch_kernels, config.minibatch_dims)
        closeness = []
        for i in range(len(x)):
            distances = [(points[i] - points[j]).abs().sum(1) for j in range(len(x)) if j != i]
            closeness.append(torch.stack([torch.exp(-distance) for distance in distances]).sum(0))
        x = torch.cat([x, torch.stack(closeness)[..., None, None].expand(-1, -1, 4, 4)], 1)
    x = finished(conv(noise(x), name="head.conv"), "head.conv", "head.norm0")
    x = finished(conv(noise(x).flatten(1), name="head.dense0"), "head.dense0", "head.norm1")
    x = biased(conv(x, name="head.dense1", gain=1.0), w, "head.dense1")
    return x[:, 0], x[:, 1:]


class SlowAdam:
    """Kingma & Ba, algorithm 1."""

    def __init__(self, config: TrainConfig) -> None:
        self.b1, self.b2, self.eps, self.t = config.beta1, config.beta2, config.adam_eps, 0
        self.m: Weights = {}
        self.v: Weights = {}

    def step(self, weights: Weights, loss: Tensor, lr: float) -> None:
        self.t += 1
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, weight), g in zip(weights.items(), gradients, strict=True):
            if g is None:  # a layer of resolutions to come
                continue
            self.m[name] = self.b1 * self.m.get(name, torch.zeros_like(g)) + (1 - self.b1) * g
            self.v[name] = self.b2 * self.v.get(name, torch.zeros_like(g)) + (1 - self.b2) * g**2
            mean, variance = self.m[name] / (1 - self.b1**self.t), self.v[name] / (1 - self.b2**self.t)
            weights[name] = (weight - lr * mean / (variance.sqrt() + self.eps)).detach().requires_grad_()


class SlowRun:
    """G, D, the average and two Adams of a TrainState, in float64, stepped as in appendix A.1 (official order)."""

    def __init__(self, state: TrainState) -> None:
        def double(network: torch.nn.Module) -> Weights:
            return {name: p.detach().cpu().double().requires_grad_() for name, p in network.named_parameters()}

        self.config, self.nimg, self.d_output = state.config, state.nimg, float(state.d_output)
        self.g, self.d = double(state.g), double(state.d)
        self.ema = double(state.g_ema)
        self.g_adam, self.d_adam = SlowAdam(self.config), SlowAdam(self.config)

    def latents(self, purpose: str, n: int) -> Tensor:
        return latents(self.config.seed, purpose, self.nimg, n, self.config.g.z_dim).double()

    def penalty(self, mix: Tensor, alpha: float) -> Tensor:
        """10 E[(norm - T)^2] / T^2, the norm in pixels of the full or the working resolution, taken literally."""
        loss, full = self.config.loss, self.config.loss.gp_norm_at == "full"
        x = (up(mix) if full else mix).detach().requires_grad_()
        scores, _ = slow_d(self.d, down(x) if full else x, alpha, self.config.d, None)
        (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        norms = torch.sqrt((slope**2).sum((1, 2, 3)))
        return loss.gp_weight * ((norms - loss.gp_target) ** 2).mean() / loss.gp_target**2

    def label_loss(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None:
            return logits.sum() * 0
        return self.config.loss.label_weight * -(torch.log_softmax(logits, 1) * labels).sum(1).mean()

    def noise(self, purpose: str) -> Callable[[Tensor], Tensor]:
        """x (1 + N(0, 1) s sqrt(C)), s = 0.2 max(d - 0.5, 0)^2, one number per image and map (appendix B)."""
        generator = keyed_generator(self.config.seed, purpose, self.nimg)
        strength = self.config.loss.lsgan_noise * max(self.d_output - 0.5, 0) ** 2

        def apply(x: Tensor) -> Tensor:
            normal, out = torch.randn(*x.shape[:2], 1, 1, generator=generator), x.clone()
            for i in range(x.shape[0]):
                for c in range(x.shape[1]):
                    out[i, c] = x[i, c] * (1 + float(normal[i, c]) * strength * sqrt(x.shape[1]))
            return out

        return apply

    def step(self, reals_at: Callable[[int], tuple[Tensor, Tensor | None]], phase: Phase) -> None:
        config, alpha, drift = self.config, phase.alpha, self.config.loss.drift
        lsgan = config.loss.kind == "lsgan"
        for _ in range(self.config.d_steps):
            reals, labels = reals_at(self.nimg)
            reals, labels = reals.double(), None if labels is None else labels.double()
            n = len(reals)
            reals = (1 - alpha) * up(down(reals)) + alpha * reals
            fakes = slow_g(self.g, self.latents("latents of D", n), labels, alpha, config.g).detach()
            share = torch.rand(n, 1, 1, 1, generator=keyed_generator(self.config.seed, "mix", self.nimg)).double()
            if lsgan:
                noise = self.noise("noise of D's step")
                scores, logits = slow_d(self.d, torch.cat([reals, fakes]), alpha, config.d, noise, 2)
                (real, fake), (real_logits, fake_logits) = scores.chunk(2), logits.chunk(2)
                loss = (real**2).mean() + config.loss.lsgan_fake_weight * ((fake - 1) ** 2).mean()
                self.d_output = 0.9 * self.d_output + 0.1 * float(fake.detach().mean())
            else:
                (real, real_logits), (fake, fake_logits) = (
                    slow_d(self.d, x, alpha, config.d, None) for x in (reals, fakes)
                )
                loss = fake.mean() - real.mean() + drift * (real**2).mean()
                loss = loss + self.penalty(reals + share * (fakes - reals), alpha)
            loss = loss + self.label_loss(real_logits, labels) + self.label_loss(fake_logits, labels)
            self.d_adam.step(self.d, loss, phase.d_lr)
            decay = self.config.ema_decay
            if self.config.ema_rampup:  # since the block entered, at 0
                decay = min(decay, 0.5 ** (n / (self.config.ema_rampup * (self.nimg + n))))
            self.ema = {name: decay * old + (1 - decay) * self.g[name].detach() for name, old in self.ema.items()}
            self.nimg += n
        fakes = slow_g(self.g, self.latents("latents of G", phase.batch), labels, alpha, config.g)
        scores, logits = slow_d(self.d, fakes, alpha, config.d, self.noise("noise of G's step") if lsgan else None)
        wanted = (scores**2).mean() if lsgan else -scores.mean()
        self.g_adam.step(self.g, wanted + self.label_loss(logits, labels), phase.g_lr)


def random_reals(phase: Phase, label_dim: int, nimg: int) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(nimg)
    images = torch.rand(phase.batch, 3, phase.resolution, phase.resolution, generator=generator) * 2 - 1
    labels = torch.eye(label_dim)[torch.randint(label_dim, (phase.batch,), generator=generator)] if label_dim else None
    return images, labels


def moved(reals: tuple[Tensor, Tensor | None], device: torch.device) -> tuple[Tensor, Tensor | None]:
    images, labels = reals
    return images.to(device), None if labels is None else labels.to(device)


STEPS = {
    "paper": {"d": {"fused_scaling": False}, "loss": LossConfig(gp_norm_at="working")},
    "official": {},
    "labels": {"g": {"label_dim": 3}, "d": {"label_dim": 3}, "loss": LossConfig(label_weight=0.7)},
    "cifar10": {"loss": LossConfig(gp_target=750.0, gp_norm_at="working")},
    "table 1, row a but growing": {
        "g": {"normalize_latent": False, "norm": "batch", "activation": "relu", "output": "tanh", "equalized": False},
        "d": {"norm": "layer", "equalized": False, "stddev_group": 0},
        "loss": LossConfig(drift=0.0),
        "d_steps": 2,
        "beta2": 0.9,
    },
    "paper's D with layer norm": {"d": {"norm": "layer", "fused_scaling": False, "stddev_group": 1000}},
    "minibatch discrimination": {"d": {"minibatch_kernels": 6, "minibatch_dims": 3, "stddev_group": 0}},
    "both of them": {"d": {"minibatch_kernels": 2}},
    "lsgan": {"g": {"label_dim": 3}, "d": {"label_dim": 3}, "loss": LossConfig(kind="lsgan", lsgan_fake_weight=0.3)},
    "short memory": {"ema_rampup": 0.1},
    "momentum, two D steps": {"beta1": 0.5, "beta2": 0.9, "d_steps": 2, "ema_decay": 0.9},
}


@pytest.mark.parametrize("what", STEPS)
def test_two_steps_are_the_slow_ones(make_config: Any, what: str, device: torch.device) -> None:
    # A large epsilon keeps Adam smooth: with 1e-8 the sign of a gradient that float32 rounds to nothing decides.
    config = make_config(
        schedule={"stable_nimg": 0, "fade_nimg": 100, "batch": {4: 8}, "g_lr": {4: 0.01}, "d_lr": {4: 0.02}},
        adam_eps=0.01,
        **{"ema_decay": 0.99, **STEPS[what]},
    )
    state = TrainState.create(config, device)
    state.nimg = 40
    state.d_output.fill_(2.0)  # as if D had won, so that there is noise
    with torch.no_grad():  # biases away from zero
        for i, parameter in enumerate([*state.g.parameters(), *state.d.parameters()]):
            if parameter.ndim == 1:
                drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
                parameter.copy_(0.3 * drawn)
    slow = SlowRun(state)
    start = {name: p.detach().clone() for name, p in state.g.named_parameters()}
    for alpha in (0.4, 0.4 + 0.08 * config.d_steps):
        phase = Schedule(config.schedule, 16).at(state.nimg)
        assert (phase.resolution, phase.batch, phase.alpha) == (8, 8, pytest.approx(alpha))
        reals_at = partial(random_reals, phase, config.g.label_dim)
        train_step(state, lambda nimg, reals_at=reals_at: moved(reals_at(nimg), device), phase)
        slow.step(reals_at, phase)
    assert state.nimg == slow.nimg == 40 + 2 * 8 * config.d_steps
    assert float(state.d_output) == pytest.approx(slow.d_output)
    assert (slow.d_output != 2.0) == (config.loss.kind == "lsgan")
    for ours, theirs, lr in ((state.d, slow.d, 0.02), (state.g, slow.g, 0.01), (state.g_ema, slow.ema, 0.001)):
        for name, parameter in ours.named_parameters():
            assert (parameter.cpu() - theirs[name]).abs().max() <= looser(device) * 2e-3 * lr, name
    for name, parameter in state.g.named_parameters():
        assert ("16" in name) == torch.equal(parameter, start[name]), name  # all that take part moved


RECORDED = STEPS | {
    "bf16": {"precision": "bf16"},
    "in parts": {"micro_batch": {4: 4}},
    "lsgan in parts": {"micro_batch": {4: 4}, "loss": LossConfig(kind="lsgan")},
}


@pytest.mark.parametrize("what", RECORDED)
def test_steps_done_again_are_the_same_bit_by_bit(make_config: Any, what: str) -> None:
    config = make_config(schedule={"stable_nimg": 32, "fade_nimg": 32, "batch": {4: 8}}, **RECORDED[what])

    def run(state: TrainState) -> TrainState:
        state.nimg = 32
        state.d_output.fill_(2.0)
        for _ in range(6):  # into the phase after the fade
            phase = Schedule(config.schedule, 16).at(state.nimg)
            train_step(state, partial(random_reals, phase, config.g.label_dim), phase)
        return state

    plain = TrainState.create(config, CPU)
    plain.recordings.run = lambda stage, key, function, inputs, lasting: function(inputs)  # type: ignore[method-assign]
    recorded, plain = run(TrainState.create(config, CPU)), run(plain)
    for ours, wanted in zip(recorded._parts().values(), plain._parts().values(), strict=True):
        for (name, a), (_, b) in zip(tensors(ours.state_dict()), tensors(wanted.state_dict()), strict=True):
            assert torch.equal(a, b), name
    assert torch.equal(recorded.d_output, plain.d_output)


def tensors(tree: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """All tensors in dicts of dicts."""
    if isinstance(tree, Tensor):
        return [(name, tree)]
    return (
        [each for key, value in tree.items() for each in tensors(value, f"{name}.{key}")]
        if isinstance(tree, dict)
        else []
    )


def test_a_phase_is_one_static_list_of_operations(make_config: Any) -> None:
    config = make_config(schedule={"stable_nimg": 32, "fade_nimg": 32, "batch": {4: 8}})
    state, made = TrainState.create(config, CPU), []
    while state.nimg < 128:
        phase = Schedule(config.schedule, 16).at(state.nimg)
        train_step(state, partial(random_reals, phase, 0), phase)
        made.append((phase.index, [id(each) for each in state.recordings._made.values()]))
    for index in range(4):
        (same,) = {tuple(ids) for at, ids in made if at == index}  # whatever alpha is
        assert len(same) == 2  # D's and G's


@pytest.mark.parametrize("what", ["official", "lsgan", "labels", "short memory"])
def test_a_step_never_looks_at_a_tensor(make_config: Any, what: str) -> None:
    """On the meta device, where there are no values: no host waits for any, and no two devices mix."""
    meta = torch.device("meta")
    config = make_config(schedule={"stable_nimg": 32, "fade_nimg": 32, "batch": {4: 8}}, **STEPS[what])
    state = TrainState.create(config, meta)

    def reals_at(nimg: int) -> tuple[Tensor, Tensor | None]:
        images, labels = random_reals(Schedule(config.schedule, 16).at(nimg), config.g.label_dim, nimg)
        return images.to(meta), None if labels is None else labels.to(meta)

    for _ in range(12):
        phase = Schedule(config.schedule, 16).at(state.nimg)
        terms = train_step(state, reals_at, phase)
        assert all(term.device == meta for term in terms.values())
    assert state.nimg == 96
    assert state.d_output.device == meta


def test_a_step_returns_its_terms(make_config: Any) -> None:
    config = make_config(g={"label_dim": 2}, d={"label_dim": 2})
    state = TrainState.create(config, CPU)
    phase = Schedule(config.schedule, 16).at(0)
    terms = train_step(state, partial(random_reals, phase, 2), phase)
    d_terms = {"wasserstein", "gradient_penalty", "drift", "labels"}
    assert terms.keys() == d_terms | {"generator", "generator_labels"}
    assert all(t.dtype == torch.float32 and not t.requires_grad and isfinite(t) for t in terms.values())


def test_every_d_step_sees_its_own_reals(make_config: Any) -> None:
    config = make_config(d_steps=3)
    state = TrainState.create(config, CPU)
    phase = Schedule(config.schedule, 16).at(0)
    seen: list[int] = []

    def reals_at(nimg: int) -> tuple[Tensor, None]:
        seen.append(nimg)
        return random_reals(phase, 0, nimg)[0], None

    train_step(state, reals_at, phase)
    assert seen == [0, 4, 8]
    assert state.nimg == 12
    assert {float(s["step"]) for s in state.d_optimizer.state.values()} == {3.0}
    assert {float(s["step"]) for s in state.g_optimizer.state.values()} == {1.0}


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6, 7, 9])
def test_any_batch_trains(make_config: Any, batch: int) -> None:
    config = make_config(schedule={"stable_nimg": 0, "fade_nimg": 100, "batch": {4: batch}})
    state = TrainState.create(config, CPU)
    for _ in range(2):
        phase = Schedule(config.schedule, 16).at(state.nimg)
        terms = train_step(state, partial(random_reals, phase, 0), phase)
    assert state.nimg == 2 * batch
    assert all(isfinite(term) for term in terms.values())
    assert all(torch.isfinite(p).all() for p in [*state.g.parameters(), *state.d.parameters()])


def test_reals_fade_with_the_newest_block(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(schedule={"stable_nimg": 0, "fade_nimg": 100})
    state = TrainState.create(config, CPU)
    state.nimg = 24
    phase = Schedule(config.schedule, 16).at(24)
    assert (phase.resolution, phase.alpha) == (8, 0.24)
    shown: list[Tensor] = []

    def spy(critic: Any, reals: Tensor, *args: Any, **options: Any) -> dict[str, Tensor]:
        shown.append(reals)
        return {"nothing": sum(p.sum() * 0 for p in state.d.parameters())}  # type: ignore[dict-item]

    monkeypatch.setattr(progan.step, "wgan_gp_d", spy)
    reals = random_reals(phase, 0, 24)[0]
    train_step(state, lambda nimg: (reals, None), phase)
    assert torch.allclose(shown[0], 0.76 * up(down(reals)) + 0.24 * reals, atol=1e-6)


def test_the_penaltys_target_in_working_pixels() -> None:
    full, working = LossConfig(gp_target=3.0), LossConfig(gp_target=3.0, gp_norm_at="working")
    assert [working_gp_target(full, 64, r) for r in (4, 8, 64)] == [48.0, 24.0, 3.0]
    assert [working_gp_target(working, 64, r) for r in (4, 8, 64)] == [3.0, 3.0, 3.0]


# ---------------------------------------------------------------------------------------------------------------------
# Data


def test_reals_are_the_stream_in_the_range_of_g(make_data: Any, make_config: Any) -> None:
    data, config = make_data(labels=3), make_config(g={"label_dim": 3}, d={"label_dim": 3}, mirror=False)
    phase = Phase(2, 8, 1.0, 6, 0.001, 0.001)
    images, labels = read_reals(data, config, phase, CPU, 30)
    order = data_order(config.seed, 30, 6, len(data))
    assert images.dtype == torch.float32
    assert torch.equal(images, to_float(torch.from_numpy(data.read(order, 8))))
    assert labels is not None
    assert labels.argmax(1).tolist() == [index % 3 for index in order]


def test_mirroring_flips_each_real_half_of_the_time(make_data: Any, make_config: Any) -> None:
    data = make_data()
    phase = Phase(2, 8, 1.0, 400, 0.001, 0.001)
    plain, mirrored = (read_reals(data, make_config(mirror=m), phase, CPU, 0)[0] for m in (False, True))
    flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(plain, mirrored, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(plain, mirrored, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 150 < sum(flipped) < 250  # 5 standard deviations
    again = read_reals(data, make_config(mirror=True), phase, CPU, 0)[0]
    assert torch.equal(mirrored, again)


def test_reals_read_ahead_are_those_read_when_asked(make_data: Any, make_config: Any) -> None:
    config, data = make_config(schedule={"batch": {4: 4, 8: 6}}), make_data(labels=3)
    config = fit_to_data(config, data)
    schedule, nimg = Schedule(config.schedule, 16), 0
    with Minibatches(data, config, CPU) as reals:
        while nimg < config.schedule.total_nimg:
            phase = schedule.at(nimg)
            for ours, wanted in zip(reals.at(phase, nimg), read_reals(data, config, phase, CPU, nimg), strict=True):
                assert ours is not None
                assert torch.equal(ours, wanted)
            nimg += phase.batch
        ahead = reals.at(schedule.at(0), 4), reals.at(schedule.at(0), 40)  # not the one that was read
    for nimg, (images, _) in zip((4, 40), ahead, strict=True):
        assert torch.equal(images, read_reals(data, config, schedule.at(0), CPU, nimg)[0])


def test_a_config_takes_channels_and_labels_from_the_data(make_data: Any, make_config: Any) -> None:
    config = fit_to_data(make_config(resolution=8), make_data(channels=1, labels=4))
    assert {(n.channels, n.label_dim, n.resolution) for n in (config.g, config.d)} == {(1, 4, 8)}
    config = fit_to_data(make_config(resolution=8, labels="ignore"), make_data("unlabelled", channels=1, labels=4))
    assert {(n.channels, n.label_dim) for n in (config.g, config.d)} == {(1, 0)}
    with pytest.raises(
        ConfigError, match="resolution: the networks make 32x32 images and the data set goes up to 16x16"
    ):
        fit_to_data(make_config(resolution=32), make_data("other"))


# ---------------------------------------------------------------------------------------------------------------------
# The loop


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("channels", "labels"), [(3, 0), (1, 3)])
def test_a_run_grows_to_the_end(make_data: Any, make_config: Any, tmp_path: Path, channels: int, labels: int) -> None:
    data: ImagePyramid = make_data(channels=channels, labels=labels)
    config = fit_to_data(make_config(schedule={"batch": {4: 8, 8: 6, 16: 5}, "total_nimg": 90}), data)
    state = train(config, data, tmp_path / "run")
    stats = lines(tmp_path / "run" / "stats.jsonl")
    assert state.nimg == stats[-1]["nimg"] == 92  # 16 in 8s, 18 + 18 in 6s, 40 in 5s
    assert [line["nimg"] for line in stats] == sorted({line["nimg"] for line in stats})
    assert {line["resolution"] for line in stats} == {4, 8, 16}
    assert any(0 < line["alpha"] < 1 for line in stats)
    assert all(isfinite(value) for line in stats for value in line.values())
    assert all(torch.isfinite(p).all() for n in (state.g, state.d, state.g_ema) for p in n.parameters())
    g, about = load_network(tmp_path / "run" / "generator.safetensors", "generator")
    assert (about["nimg"], about["resolution"], about["alpha"]) == (92, 16, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(g.parameters(), state.g_ema.parameters(), strict=True))
    assert len(lines(tmp_path / "run" / "timing.jsonl")) == len(stats)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "reals.png", "fakes-000000000.png", "fakes-000000092.png", "log.txt"} <= names
    assert not list((tmp_path / "run").rglob(".*.partial"))


def test_weights_say_what_they_learned_from(make_config: Any, tmp_path: Path) -> None:
    credit = {"title": "Noise", "licence": "CC0"}
    with PyramidWriter(
        tmp_path / "data", resolution=4, channels=1, label_names=["a"], source={"kind": "test"}, attribution=credit
    ) as writer:
        for _ in range(4):
            writer.append(box_pyramid(np.zeros((1, 4, 4), np.uint8)), 0)
    data = ImagePyramid.open(tmp_path / "data")
    train(fit_to_data(make_config(resolution=4, schedule={"total_nimg": 8}), data), data, tmp_path / "run")
    weights = [tmp_path / "run" / "generator.safetensors", *(tmp_path / "run" / "snapshots").iterdir()]
    assert len(weights) > 1
    for path in weights:
        assert load_network(path, "generator")[1]["data"] == {
            "hash": data.hash, "count": 4, "label_names": ["a"], "source": {"kind": "test"}, "attribution": credit,
        }  # fmt: skip


def test_a_run_says_on_what_it_was_computed(
    make_data: Any, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = make_data(), make_config(resolution=4)
    for total, torch_version in ((8, torch.__version__), (16, torch.__version__), (24, "9.9")):
        monkeypatch.setattr(torch, "__version__", torch_version)
        train(replace(config, schedule=replace(config.schedule, total_nimg=total)), data, tmp_path / "run")
    first, second = lines(tmp_path / "run" / "machines.jsonl")  # none where nothing had changed
    assert (first["nimg"], second["nimg"]) == (0, 16)
    assert (first["device"], first["threads"], first["processes"]) == ("cpu", torch.get_num_threads(), 1)
    assert first["progan"] == progan.__version__
    assert " cores, " in first["processor"]
    assert second | {"nimg": 0, "torch": first["torch"]} == first
    assert second["torch"] == "9.9"


def test_a_line_of_stats_is_the_mean_of_its_steps(make_data: Any, make_config: Any, tmp_path: Path) -> None:
    data, config = make_data(), make_config(schedule={"total_nimg": 8})
    train(config, data, tmp_path / "run")
    (line,) = lines(tmp_path / "run" / "stats.jsonl")
    state = TrainState.create(config, CPU)
    phase = Schedule(config.schedule, 16).at(0)
    terms = [train_step(state, partial(read_reals, data, config, phase, CPU), phase) for _ in range(2)]
    for name in terms[0]:
        assert line[name] == pytest.approx(float(terms[0][name] + terms[1][name]) / 2, rel=1e-6), name
    assert (line["nimg"], line["resolution"], line["alpha"], line["batch"]) == (8, 4, 1.0, 4)


def test_a_diverged_run_ends_with_a_sentence(make_data: Any, make_config: Any, tmp_path: Path) -> None:
    config = make_config(schedule={"g_lr": {4: 1e9}, "d_lr": {4: 1e9}}, tick_nimg=16)
    with pytest.raises(RunError, match=r"diverged.*is not a number.*lower --lr"):
        train(config, make_data(), tmp_path / "run")


@pytest.mark.parametrize(
    ("every", "before", "now", "is_crossed"),
    [(10, 0, 9, False), (10, 0, 10, True), (10, 9, 11, True), (10, 10, 19, False), (10, 5, 35, True)],
)
def test_cadence_by_crossing(every: int, before: int, now: int, is_crossed: bool) -> None:
    assert crossed(every, before, now) == is_crossed


def test_signal_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals() as caught:
        signal.raise_signal(signal.SIGTERM)
        assert caught == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):  # the second one does not wait
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# ---------------------------------------------------------------------------------------------------------------------
# Accidents


def on_reading(monkeypatch: pytest.MonkeyPatch, nimg: int, accident: Callable[[], object]) -> None:
    """An accident as the reals at nimg are about to be read, the first time."""
    original, accidents = progan.run.minibatches._read, [accident]

    def read(data: ImagePyramid, config: TrainConfig, phase: Phase, now: int, team: Team) -> Any:
        if now == nimg and accidents:
            accidents.pop()()
        return original(data, config, phase, now, team)

    monkeypatch.setattr(progan.run.minibatches, "_read", read)


def raise_(error: Exception) -> None:
    raise error


NO_MEMORY = {
    "GPU": torch.OutOfMemoryError("Tried to allocate 20.00 MiB"),
    "NumPy": MemoryError("Unable to allocate 9 GiB"),
    "CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"
    ),
    "CPU of Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


@pytest.mark.parametrize(("batch", "advice"), [(8, "pass --micro-batch 4"), (4, "take a device that has more")])
@pytest.mark.parametrize("where", NO_MEMORY)
def test_a_step_without_memory_is_one_sentence_and_smaller_parts_go_on(
    make_data: Any,
    make_config: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    batch: int,
    advice: str,
) -> None:
    data, config = make_data(), make_config(schedule={"batch": {4: batch}})
    on_reading(monkeypatch, 40, lambda: raise_(NO_MEMORY[where]))
    said = (
        rf"micro_batch: {batch} images at once at 8x8 need more memory than there is \(estimated: 0.4 GiB\); {advice}, "
    )
    with pytest.raises(RunError, match=said + "and the same command continues at the last checkpoint"):
        train(config, data, tmp_path / "run")
    assert newest(tmp_path / "run") == 32
    assert train(replace(config, micro_batch={4: 4}), data, tmp_path / "run").nimg == 96


def test_other_errors_of_a_step_stay_what_they_are(
    make_data: Any, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_reading(monkeypatch, 40, lambda: raise_(RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match="shapes cannot"):
        train(make_config(), make_data(), tmp_path / "run")


def newest(run: Path) -> int:
    """Where the newest checkpoint of a run is."""
    return nimg_of(checkpoints(run / "checkpoints")[-1])


@pytest.mark.parametrize(("d_steps", "nimg", "saved"), [(1, 40, 40), (2, 40, 40), (2, 44, 32)])
def test_data_that_is_changed_ends_a_run_where_it_had_not_been_read(
    make_data: Any,
    make_config: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    d_steps: int,
    nimg: int,
    saved: int,
) -> None:
    """44 is in the middle of a step, of which no half is kept."""
    config = make_config(d_steps=d_steps)
    train(config, make_data(), tmp_path / "straight")
    file = make_data("changing").path / "images-8x8.npy"
    before = file.read_bytes()
    os.utime(file, ns=(0, 0))
    on_reading(monkeypatch, nimg, lambda: file.write_bytes(before[:-1] + b"7"))
    with pytest.raises(DataError, match=r"images-8x8\.npy: was changed while it was in use") as caught:
        train(config, ImagePyramid.open(file.parent), tmp_path / "run")
    assert ("saved at 0.0 kimg, where the same command continues" in str(caught.value)) == (saved == nimg)
    assert newest(tmp_path / "run") == saved
    file.write_bytes(before)
    train(config, ImagePyramid.open(file.parent), tmp_path / "run")
    for name in ("generator.safetensors", "stats.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be moved there")
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_is_moved_writes_nothing_in_its_old_place(
    make_data: Any, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: bool, begun: bool
) -> None:
    """begun: another run was begun there, where it goes on undisturbed."""
    data, config = make_data(), make_config()

    def move() -> None:
        (tmp_path / "run").rename(tmp_path / "moved")
        if begun:
            shutil.copytree(tmp_path / "moved", tmp_path / "run")
        if stop:
            signal.raise_signal(signal.SIGTERM)

    on_reading(monkeypatch, 36, move)
    with pytest.raises(
        RunError, match="run: the run's folder was moved or deleted; move it back, then the same command"
    ):
        train(config, data, tmp_path / "run")
    assert (tmp_path / "run").exists() == begun
    for folder in ("moved", *["run"] * begun):
        assert newest(tmp_path / folder) == 32
        assert train(config, data, tmp_path / folder).nimg == 96


def test_a_checkpoint_of_another_config_is_refused_by_the_name_of_its_field(
    make_data: Any, make_config: Any, tmp_path: Path
) -> None:
    data, config = make_data(), make_config()
    for name, seed in (("one", 0), ("other", 1)):
        train(replace(config, seed=seed), data, tmp_path / name)
    shutil.rmtree(tmp_path / "one" / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", tmp_path / "one" / "checkpoints")
    with pytest.raises(RunError, match=r"checkpoint-000000096\.pt: .*its seed is 1, the run's 0\); delete it"):
        train(config, data, tmp_path / "one")
    free = replace(config, micro_batch={4: 4}, checkpoint_nimg=8, schedule=replace(config.schedule, total_nimg=104))
    assert train(replace(free, seed=1), data, tmp_path / "other").nimg == 104


# ---------------------------------------------------------------------------------------------------------------------
# Starting from given networks


@pytest.fixture
def init(make_config: Any, tmp_path: Path) -> Path:
    """Networks of another seed, g, d and generator all different."""
    folder = tmp_path / "init"
    folder.mkdir()
    other = TrainState.create(make_config(seed=99), CPU)
    with torch.no_grad():
        for parameter in other.g_ema.parameters():
            parameter.mul_(0.9)
    for name, network in (("g", other.g), ("d", other.d), ("generator", other.g_ema)):
        save_network(folder / f"{name}.safetensors", network)
    return folder


def test_a_run_from_given_networks_trains_at_full_resolution(
    make_data: Any, make_config: Any, init: Path, tmp_path: Path
) -> None:
    state = train(make_config(), make_data(), tmp_path / "run", init)
    stats = lines(tmp_path / "run" / "stats.jsonl")
    assert state.nimg == 96
    assert {(line["resolution"], line["alpha"]) for line in stats} == {(16, 1.0)}
    g = load_network(init / "g.safetensors", "generator")[0]
    moved = [(a - b).abs().max() for a, b in zip(g.parameters(), state.g.parameters(), strict=True)]
    assert 0 < max(moved) < 0.05  # eight steps of 0.001 from there
    with pytest.raises(RunError, match=r"init was .* and is now"):
        train(make_config(), make_data("again"), tmp_path / "run", None)


def test_a_run_that_is_done_has_a_generator(make_data: Any, make_config: Any, init: Path, tmp_path: Path) -> None:
    config = make_config(schedule={"total_nimg": 64})  # reached by the start alone
    train(config, make_data(), tmp_path / "run", init)
    assert (tmp_path / "run" / "generator.safetensors").exists()


def test_a_wrong_start_begins_no_run(make_data: Any, make_config: Any, init: Path, tmp_path: Path) -> None:
    (init / "generator.safetensors").unlink()
    with pytest.raises(RunError, match=r"generator\.safetensors: no such file"):
        train(make_config(), make_data(), tmp_path / "run", init)
    assert not (tmp_path / "run").exists()


def test_the_data_set_is_never_written(make_data: Any, make_config: Any, tmp_path: Path) -> None:
    data = make_data()
    before = {path: path.read_bytes() for path in data.path.iterdir()}
    train(replace(make_config(schedule={"total_nimg": 40}), mirror=True), data, tmp_path / "run")
    assert {path: path.read_bytes() for path in data.path.iterdir()} == before
    assert np.array_equal(data.read(np.arange(2), 16), ImagePyramid.open(data.path).read(np.arange(2), 16))
