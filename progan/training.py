"""Training: the loop around the step, and what it leaves in a run's folder (paper section 2, appendix A.1)."""

import os
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.run.folder import open_run
from progan.run.log import RunLog, duration
from progan.run.metrics_log import RunMetrics
from progan.run.preview import Preview
from progan.run.signals import stop_signals
from progan.run.state import TrainState, checkpoints
from progan.run.team import Team, check_shares, join_team
from progan.schedule import Phase, Schedule
from progan.step import read_reals, train_step
from progan.support.device import pick_device
from progan.support.errors import ConfigError, Stopped
from progan.support.malloc import keep_freed_memory
from progan.support.run_files import RunFolder
from progan.weights import load_networks, save_network


def fit_to_data(config: TrainConfig, data: ImagePyramid) -> TrainConfig:
    """The config with the data's channels and labels; raises ConfigError if the data is smaller than the networks."""
    if config.g.resolution not in data.resolutions:
        raise ConfigError(
            f"resolution: the networks make {config.g.resolution}x{config.g.resolution} images and the data set goes"
            f" up to {data.resolution}x{data.resolution}; pass --resolution {data.resolution} or make a larger data set"
        )
    shape: dict[str, Any] = {"channels": data.channels, "label_dim": data.label_dim}
    return replace(config, g=replace(config.g, **shape), d=replace(config.d, **shape))


def train(
    config: TrainConfig,
    data: ImagePyramid,
    out: str | os.PathLike[str],
    init: str | os.PathLike[str] | None = None,
) -> TrainState:
    """Start the run in folder `out`, or continue it from its newest checkpoint, to its last image.

    config: as `fit_to_data` gives it. init: a folder with g, d and generator .safetensors to start from in place of
    random weights, at the first image of the last phase. Ctrl-C and SIGTERM save a checkpoint, then raise Stopped.
    Processes that torchrun started share the work, and the first of them writes. Raises RunError when `out` holds a run
    of another config or data set, or when training diverges.
    """
    device = pick_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    started = None if init is None else load_networks(Path(init))  # before the folder is begun
    with ExitStack() as stack:
        team = stack.enter_context(join_team(device))
        team.first(lambda: check_shares(config, team.size))
        if config.metrics:  # refused before the folder is begun
            team.first(lambda: RunMetrics(config, data, device, RunFolder(Path(out))) and None)
        run = partial(open_run, Path(out), config, data.hash, str(init or ""))
        folder, config = team.first(lambda: stack.enter_context(run()))
        state = TrainState.create(config, device)
        if saved := team.first(lambda: checkpoints(folder.checkpoints)):
            state.load(saved[-1])
        elif started is not None:
            state.start_from(started)
        if team.rank == 0:
            _loop(state, data, device, team, stack.enter_context(RunLog(folder, state)))
        else:
            _follow(state, data, device, team)
    return state


def _loop(state: TrainState, data: ImagePyramid, device: torch.device, team: Team, log: RunLog) -> None:
    config, folder = state.config, log.folder
    schedule, total = Schedule(config.schedule, config.g.resolution), config.schedule.total_nimg
    preview = Preview(config, data)
    metrics = RunMetrics(config, data, device, folder) if config.metrics else None
    log.say(
        f"{'continuing at' if state.nimg else 'starting at'} {state.nimg / 1000:.1f} of {total / 1000:g} kimg"
        f" on {device}, {config.precision}, pictures in {folder.path}"
    )
    if not (folder.path / "reals.png").exists():
        log.picture(f"fakes-{state.nimg:09d}.png", preview.fakes(state))
        log.picture("reals.png", preview.reals())  # last: its absence says that the run has not begun
    with stop_signals() as stopped:
        while state.nimg < total:
            phase, before = schedule.at(state.nimg), state.nimg
            terms, stop = _step(state, phase, data, device, team, stopped)
            log.step(phase, terms)
            done = state.nimg >= total
            if crossed(config.tick_nimg, before, state.nimg) or done:
                log.tick(phase)
            if crossed(config.snapshot_nimg, before, state.nimg) or done:
                log.picture(f"fakes-{state.nimg:09d}.png", preview.fakes(state))
                save_network(folder.snapshots / f"generator-{state.nimg:09d}.safetensors", state.g_ema, **state.stage())
            if metrics and (crossed(config.metrics_nimg, before, state.nimg) or done):
                with log.paused():
                    log.say(f"{state.nimg / 1000:8.1f} kimg  {metrics.measure(state.g_ema, **state.stage())}")
            if crossed(config.checkpoint_nimg, before, state.nimg) or done or stop:
                state.save(folder.checkpoints)
            if stop and not done:
                log.say(f"stopped at {state.nimg / 1000:.1f} kimg and saved; the same command continues")
                raise Stopped(stop)
    save_network(folder.generator, state.g_ema, **state.stage())
    log.say(f"done: {state.nimg / 1000:.1f} kimg in {duration(state.seconds)}; generator in {folder.generator}")


def _follow(state: TrainState, data: ImagePyramid, device: torch.device, team: Team) -> None:
    """The steps alone, for the processes of a team that write nothing."""
    config = state.config
    schedule, total = Schedule(config.schedule, config.g.resolution), config.schedule.total_nimg
    with stop_signals() as stopped:
        while state.nimg < total:
            _, stop = _step(state, schedule.at(state.nimg), data, device, team, stopped)
            if stop and state.nimg < total:
                raise Stopped(stop)


def _step(
    state: TrainState, phase: Phase, data: ImagePyramid, device: torch.device, team: Team, stopped: list[int]
) -> tuple[dict[str, Tensor], int]:
    """One step: its terms, and the signal that asked any process of the team to stop, or 0."""
    terms = train_step(state, partial(read_reals, data, state.config, phase, device, team=team), phase, team)
    return terms, team.largest(stopped[0] if stopped else 0)


def crossed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; a batch seldom hits it exactly."""
    return before // every != now // every
