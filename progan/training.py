"""Training: one step, and the loop around it (paper section 2, appendix A.1)."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from progan.config import LossConfig, TrainConfig
from progan.data.pyramid import ImagePyramid
from progan.device import autocast, pick_device
from progan.errors import ConfigError, Stopped
from progan.generate import one_hot, sample
from progan.images import fade_reals, make_grid, mirror, to_float
from progan.layers import ChannelNoise
from progan.losses import Critic, lsgan_d, lsgan_g, lsgan_noise, wgan_gp_d, wgan_gp_g
from progan.memory import keep_freed_memory
from progan.rng import data_order, keyed_generator, latents
from progan.run_folder import open_run
from progan.run_metrics import RunMetrics
from progan.runlog import RunLog, duration
from progan.schedule import Phase, Schedule
from progan.state import TrainState, checkpoints, load_network, save_network

Reals = tuple[Tensor, Tensor | None]


def train_step(state: TrainState, reals_at: Callable[[int], Reals], phase: Phase) -> dict[str, Tensor]:
    """D's updates, the moving average, nimg, G's update, and the optimizers' reset at the border of a phase.

    reals_at: nimg -> float32 images [batch, C, R, R] in [-1, 1] at the phase's resolution, and one-hot labels or None.
    Returns the terms of both losses: float32 scalars, detached.
    """
    config, labels = state.config, None
    terms: dict[str, Tensor] = {}
    for optimizer, lr in ((state.d_optimizer, phase.d_lr), (state.g_optimizer, phase.g_lr)):
        for group in optimizer.param_groups:
            group["lr"] = lr
    for _ in range(config.d_steps):
        reals, labels = reals_at(state.nimg)
        terms |= _update_d(state, reals, labels, phase)
        state.update_ema()
        state.nimg += len(reals)
    terms |= _update_g(state, labels, phase)
    if Schedule(config.schedule, config.g.resolution).at(state.nimg).index != phase.index:
        state.reset_optimizers()
    return {name: term.detach() for name, term in terms.items()}


def _update_d(state: TrainState, reals: Tensor, labels: Tensor | None, phase: Phase) -> dict[str, Tensor]:
    config, n, device = state.config, len(reals), reals.device
    z = latents(config.seed, "latents of D", state.nimg, n, config.g.z_dim).to(device)
    reals = fade_reals(reals, phase.alpha)
    with autocast(config.precision, device):
        with torch.no_grad():
            fakes = state.g(z, labels, resolution=phase.resolution, alpha=phase.alpha)
        critic, seen = _critic(state, phase, "noise of D's step")
        if config.loss.kind == "wgan-gp":
            mix = torch.rand(n, 1, 1, 1, generator=keyed_generator(config.seed, "mix", state.nimg)).to(device)
            terms = wgan_gp_d(
                critic,
                reals,
                fakes,
                mix,
                labels,
                gp_weight=config.loss.gp_weight,
                gp_target=working_gp_target(config.loss, config.d.resolution, phase.resolution),
                drift=config.loss.drift,
                label_weight=config.loss.label_weight,
            )
        else:
            terms = lsgan_d(
                critic,
                reals,
                fakes,
                labels,
                fake_weight=config.loss.lsgan_fake_weight,
                label_weight=config.loss.label_weight,
            )
            state.d_output = state.d_output.lerp(seen[0][n:].mean(), 0.1)
    _minimise(terms, state.d_optimizer)
    return terms


def _update_g(state: TrainState, labels: Tensor | None, phase: Phase) -> dict[str, Tensor]:
    config, device = state.config, next(state.g.parameters()).device
    z = latents(config.seed, "latents of G", state.nimg, phase.batch, config.g.z_dim).to(device)
    state.d.requires_grad_(False)  # its weights' gradients would be thrown away
    with autocast(config.precision, device):
        fakes = state.g(z, labels, resolution=phase.resolution, alpha=phase.alpha)
        critic, _ = _critic(state, phase, "noise of G's step")
        loss = wgan_gp_g if config.loss.kind == "wgan-gp" else lsgan_g
        terms = loss(critic, fakes, labels, label_weight=config.loss.label_weight)
    _minimise(terms, state.g_optimizer)
    state.d.requires_grad_(True)
    return terms


def _critic(state: TrainState, phase: Phase, purpose: str) -> tuple[Critic, list[Tensor]]:
    """D at this moment of growing, with LSGAN's noise if it is wanted; and the scores [N] of each of its calls."""
    config, noise, seen = state.config, None, []
    if config.loss.kind == "lsgan" and config.loss.lsgan_noise:
        generator = keyed_generator(config.seed, purpose, state.nimg)
        noise = ChannelNoise(lsgan_noise(state.d_output, config.loss.lsgan_noise), generator)

    def critic(images: Tensor, *, sets: int = 1) -> tuple[Tensor, Tensor]:
        out = state.d(images, resolution=phase.resolution, alpha=phase.alpha, sets=sets, noise=noise)
        seen.append(out[0].detach())
        return out

    return critic, seen


def _minimise(terms: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()


def working_gp_target(loss: LossConfig, full: int, resolution: int) -> float:
    """The penalty's target in pixels of the resolution at work.

    Seen from the full resolution, a gradient spreads over (full / resolution)^2 pixels for each one at work, and its
    norm shrinks by full / resolution. So the official penalty, taken there, is this one with a larger target.
    """
    return loss.gp_target * (full / resolution if loss.gp_norm_at == "full" else 1.0)


def read_reals(data: ImagePyramid, config: TrainConfig, phase: Phase, device: torch.device, nimg: int) -> Reals:
    """The minibatch of reals at `nimg`: float32 [batch, C, R, R] in [-1, 1], one-hot labels [batch, label_dim]."""
    indices = data_order(config.seed, nimg, phase.batch, len(data))
    images = data.read(indices, phase.resolution)
    if config.mirror:
        flips = torch.rand(phase.batch, generator=keyed_generator(config.seed, "mirror", nimg)) < 0.5
        images = mirror(images, flips.numpy())
    labels = torch.from_numpy(data.read_labels(indices)).to(device) if config.g.label_dim else None
    return to_float(torch.from_numpy(images).to(device)), labels


def fit_to_data(config: TrainConfig, data: ImagePyramid) -> TrainConfig:
    """The config with the data's channels and labels; raises ConfigError if the data is smaller than the networks."""
    if config.g.resolution not in data.resolutions:
        raise ConfigError(
            f"resolution: the networks make {config.g.resolution}x{config.g.resolution} images and the data set goes"
            f" up to {data.resolution}x{data.resolution}; pass --resolution {data.resolution} or make a larger data set"
        )
    shape: dict[str, Any] = {"channels": data.channels, "label_dim": data.label_dim}
    return replace(config, g=replace(config.g, **shape), d=replace(config.d, **shape))


def train(config: TrainConfig, data: ImagePyramid, out: Path, init: Path | None = None) -> TrainState:
    """Start the run in folder `out`, or continue it from its newest checkpoint, to its last image.

    config: fitted to the data. init: a folder with g, d and generator .safetensors to start from in place of random
    weights, at the first image of the last phase. Ctrl-C and SIGTERM save a checkpoint first, then raise Stopped.
    Raises RunError when `out` holds a run of another config or data set, or when training diverges.
    """
    device = pick_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    started = None if init is None else load_networks(init)  # before the folder is begun
    with open_run(out, config, data.hash, str(init or "")) as (folder, config):
        state = TrainState.create(config, device)
        if saved := checkpoints(folder.checkpoints):
            state.load(saved[-1])
        elif started is not None:
            start_from(state, started)
        with RunLog(folder, state) as log:
            _loop(state, data, device, log)
    return state


def _loop(state: TrainState, data: ImagePyramid, device: torch.device, log: RunLog) -> None:
    config, folder = state.config, log.folder
    schedule, total = Schedule(config.schedule, config.g.resolution), config.schedule.total_nimg
    preview = Preview(config, data)
    metrics = RunMetrics(config, data, device, folder) if config.metrics else None
    log.say(
        f"{'continuing at' if state.nimg else 'starting at'} {state.nimg / 1000:.1f} of {total / 1000:g} kimg"
        f" on {device}, {config.precision}, pictures in {folder.path}"
    )
    if not (folder.path / "reals.png").exists():
        log.picture(f"fakes-{state.nimg:09d}.png", preview.fakes(state, schedule))
        log.picture("reals.png", preview.reals())  # last: its absence says that the run has not begun
    with stop_signals() as stopped:
        while state.nimg < total:
            phase, before = schedule.at(state.nimg), state.nimg
            terms = train_step(state, partial(read_reals, data, config, phase, device), phase)
            log.step(phase, terms)
            done = state.nimg >= total
            if crossed(config.tick_nimg, before, state.nimg) or done:
                log.tick(phase)
            if crossed(config.snapshot_nimg, before, state.nimg) or done:
                log.picture(f"fakes-{state.nimg:09d}.png", preview.fakes(state, schedule))
                save_network(
                    folder.snapshots / f"generator-{state.nimg:09d}.safetensors", state.g_ema, **stage(state, schedule)
                )
            if metrics and (crossed(config.metrics_nimg, before, state.nimg) or done):
                with log.paused():
                    log.say(f"{state.nimg / 1000:8.1f} kimg  {metrics.measure(state.g_ema, **stage(state, schedule))}")
            if crossed(config.checkpoint_nimg, before, state.nimg) or done or stopped:
                state.save(folder.checkpoints)
            if stopped and not done:
                log.say(f"stopped at {state.nimg / 1000:.1f} kimg and saved; the same command continues")
                raise Stopped(stopped[0])
    save_network(folder.generator, state.g_ema, **stage(state, schedule))
    log.say(f"done: {state.nimg / 1000:.1f} kimg in {duration(state.seconds)}; generator in {folder.generator}")


def stage(state: TrainState, schedule: Schedule) -> dict[str, Any]:
    """What a weights file says about how far its network has grown."""
    phase = schedule.at(max(0, min(state.nimg, schedule.config.total_nimg - 1)))
    return {"nimg": state.nimg, "resolution": phase.resolution, "alpha": phase.alpha}


def load_networks(folder: Path) -> dict[str, Any]:
    """g, d and generator (the average) of a folder made by `progan import`; raises RunError if one is missing."""
    kinds = {"g": "generator", "d": "discriminator", "generator": "generator"}
    return {name: load_network(folder / f"{name}.safetensors", kind)[0] for name, kind in kinds.items()}


def start_from(state: TrainState, networks: dict[str, Any]) -> None:
    """Take over g, d and generator (the moving average); training goes on at the first image of the last phase."""
    for name, own in (("g", state.g), ("d", state.d), ("generator", state.g_ema)):
        if networks[name].config != own.config:
            raise ConfigError(f"init: {name}.safetensors is of {networks[name].config}, the run of {own.config}")
        own.load_state_dict(networks[name].state_dict())
    state.nimg = Schedule(state.config.schedule, state.config.g.resolution).first_full_nimg()


class Preview:
    """The pictures of a run: reals, and the moving average's images for latents that never change."""

    def __init__(self, config: TrainConfig, data: ImagePyramid) -> None:
        self.data = data
        self.resolution = config.g.resolution
        self.columns = max(1, min(8, 2048 // self.resolution))
        count = self.columns**2
        self.z = latents(config.seed, "preview", 0, count, config.g.z_dim)
        classes = [i % max(1, config.g.label_dim) for i in range(count)]
        self.labels = one_hot(classes, config.g.label_dim)
        self.indices = data_order(config.seed, 0, count, len(data))

    def reals(self) -> Image.Image:
        """Real images at full resolution."""
        return make_grid(self.data.read(self.indices, self.resolution), self.columns, self.columns)

    def fakes(self, state: TrainState, schedule: Schedule) -> Image.Image:
        """Images at the resolution and alpha of the moment, pixels repeated up to the full resolution."""
        at = stage(state, schedule)
        resolution, alpha = int(at["resolution"]), at["alpha"]
        images = sample(state.g_ema, self.z, self.labels, resolution=resolution, alpha=alpha, full_size=True)
        return make_grid(images, self.columns, self.columns)


def crossed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; a batch seldom hits it exactly."""
    return before // every != now // every


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, for the loop to end in its own time; a second one ends it at once."""
    caught: list[int] = []

    def handle(signum: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
