"""Training: the loop around the step, and what it leaves in a run's folder (paper section 2, appendix A.1)."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import progan
from progan.config import TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.run.dry_run import enough_memory, metrics_advice, step_advice
from progan.run.folder import open_run
from progan.run.log import RunLog
from progan.run.metrics_log import RunMetrics, check_metrics
from progan.run.minibatches import Minibatches
from progan.run.preview import Preview
from progan.run.signals import stop_signals
from progan.run.start import branch_point, read_start, start_from
from progan.run.state import TrainState, checkpoints
from progan.run.team import Team, check_shares, join_team
from progan.schedule import Phase, Schedule
from progan.step import train_step
from progan.support.arithmetic import number_format, same_bits
from progan.support.device import machine, pick_device
from progan.support.errors import ConfigError, DataError, Stopped, UserError
from progan.support.files import write_text
from progan.support.malloc import keep_freed_memory
from progan.support.progress import duration
from progan.support.run_files import RunFolder, read_lines
from progan.threads import computing_threads, pick_threads
from progan.weights import save_network


def fit_to_data(config: TrainConfig, data: ImagePyramid) -> TrainConfig:
    """The config with the data's channels, and its labels unless they are to be ignored.

    Raises ConfigError if the data is smaller than the networks.
    """
    if config.g.resolution not in data.resolutions:
        raise ConfigError(
            f"resolution: the networks make {config.g.resolution}x{config.g.resolution} images and the data set goes"
            f" up to {data.resolution}x{data.resolution}; pass --resolution {data.resolution} or make a larger data set"
        )
    shape: dict[str, Any] = {"channels": data.channels, "label_dim": data.label_dim if config.labels == "use" else 0}
    return replace(config, g=replace(config.g, **shape), d=replace(config.d, **shape))


def train(
    config: TrainConfig,
    data: ImagePyramid,
    out: str | os.PathLike[str],
    init: str | os.PathLike[str] | None = None,
    *,
    branch: str | os.PathLike[str] | None = None,
    from_nimg: int | None = None,
) -> TrainState:
    """Start the run in folder `out`, or continue it from its newest checkpoint, to its last image.

    config: as `fit_to_data` gives it. init: a run, or a folder with g, d and generator .safetensors, whose networks to
    start from in place of random weights, as far as they have grown. branch: a run to go on from as it was, optimizers
    and position too. from_nimg: at which kept moment of that run, its newest by default. Ctrl-C and SIGTERM save a
    checkpoint, then raise Stopped.
    Processes that torchrun started share the work, and the first of them writes. Raises RunError when `out` holds a run
    of another config or data set, or when training diverges.
    """
    device = pick_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    start = None if init is None else read_start(Path(init), from_nimg)  # before the folder is begun
    begun = None if branch is None else branch_point(Path(branch), from_nimg, config)
    origin = str(init or (begun and f"branch of {begun}") or "") + (f" at {from_nimg}" if init and from_nimg else "")
    with ExitStack() as stack:
        stack.enter_context(same_bits(config.deterministic, device))  # before CUDA starts
        team = stack.enter_context(join_team(device))
        team.first(lambda: check_shares(config, team.size))
        team.first(lambda: check_metrics(config, data, device, RunFolder(Path(out))))  # before the folder is begun
        run = partial(open_run, Path(out), config, data.hash, origin, pick_threads)
        folder, config = team.first(lambda: stack.enter_context(run()))
        stack.enter_context(computing_threads(config.threads))
        stack.enter_context(number_format(config.precision, tuned=True))
        state = TrainState.create(config, device)
        if saved := team.first(lambda: checkpoints(folder.checkpoints)):
            state.load(saved[-1])
        elif begun is not None:
            state.load(begun, branch=True)
        notes = start_from(state, start) if start is not None and not saved else []
        reals = stack.enter_context(Minibatches(data, config, device, team))
        if team.rank == 0:
            log = stack.enter_context(RunLog(folder, state))
            for note in notes:
                log.say(note)
            _loop(state, data, reals, device, team, log)
        else:
            _follow(state, reals, team)
    return state


def _loop(
    state: TrainState, data: ImagePyramid, reals: Minibatches, device: torch.device, team: Team, log: RunLog
) -> None:
    config, folder = state.config, log.folder
    schedule, total = Schedule(config.schedule, config.g.resolution), config.schedule.total_nimg
    preview = Preview(config, data)
    metrics = RunMetrics(config, data, device, folder) if config.metrics else None
    threads = f", {config.threads} thread{'s' if config.threads > 1 else ''}" if config.threads else ""
    log.say(
        f"{'continuing at' if state.nimg else 'starting at'} {state.nimg / 1000:.1f} of {total / 1000:g} kimg"
        f" on {device}, {config.precision}{threads}, pictures in {folder.path}"
    )
    repeatable = {"deterministic": True} if config.deterministic else {}
    _note_machine(folder, state.nimg, machine(device) | {"processes": team.size} | repeatable)
    if not folder.reals.exists():
        log.picture(f"fakes-{state.nimg:09d}.png", preview.fakes(state))
        log.picture(folder.reals.name, preview.reals())  # last: its absence says that the run has not begun
    with stop_signals() as stopped:
        while state.nimg < total:
            phase, before = schedule.at(state.nimg), state.nimg
            with _saved_after(DataError, state, log):
                terms, stop = _step(state, phase, reals, team, stopped)
            log.step(phase, terms)
            done = state.nimg >= total
            if crossed(config.tick_nimg, before, state.nimg) or done:
                log.tick(phase)
            if crossed(config.snapshot_nimg, before, state.nimg) or done:
                log.picture(f"fakes-{state.nimg:09d}.png", preview.fakes(state))
                _save_generator(state, data, folder.snapshots / f"generator-{state.nimg:09d}.safetensors")
            if metrics and (crossed(config.metrics_nimg, before, state.nimg) or done):
                with log.paused(), _saved_after(Exception, state, log), enough_memory(metrics_advice):
                    log.say(f"{state.nimg / 1000:8.1f} kimg  {metrics.measure(state.g_ema, **state.stage())}")
            if crossed(config.checkpoint_nimg, before, state.nimg) or done or stop:
                log.check_place()
                state.save(folder.checkpoints)
            if stop and not done:
                log.say(f"stopped at {state.nimg / 1000:.1f} kimg and saved; the same command continues")
                raise Stopped(stop)
    _save_generator(state, data, folder.generator)
    log.say(f"done: {state.nimg / 1000:.1f} kimg in {duration(state.seconds)}; generator in {folder.generator}")


@contextmanager
def _saved_after(kind: type[Exception], state: TrainState, log: RunLog) -> Iterator[None]:
    """Save a checkpoint when an error of this kind ends the run; not in the middle of a step, which would be halved."""
    before = state.nimg
    try:
        yield
    except kind as error:
        if state.nimg == before:
            log.check_place()
            state.save(log.folder.checkpoints)
            if isinstance(error, UserError):
                said = f"{error}; the run is saved at {before / 1000:.1f} kimg, where the same command continues"
                raise type(error)(said) from None
        raise


def _note_machine(folder: RunFolder, nimg: int, about: dict[str, Any]) -> None:
    """A line of machines.jsonl wherever a run goes on with another machine or version than before."""
    now = {"nimg": nimg, "progan": progan.__version__} | about
    lines = list(read_lines(folder.machines))
    if not lines or lines[-1] | {"nimg": nimg} != now:
        write_text(folder.machines, "".join(json.dumps(line) + "\n" for line in [*lines, now]))


def _save_generator(state: TrainState, data: ImagePyramid, path: Path) -> None:
    """The moving average; what it was made of, and under which licence, goes wherever the weights go."""
    save_network(path, state.g_ema, **state.stage(), data=data.about)


def _follow(state: TrainState, reals: Minibatches, team: Team) -> None:
    """The steps alone, for the processes of a team that write nothing."""
    config = state.config
    schedule, total = Schedule(config.schedule, config.g.resolution), config.schedule.total_nimg
    with stop_signals() as stopped:
        while state.nimg < total:
            _, stop = _step(state, schedule.at(state.nimg), reals, team, stopped)
            if stop and state.nimg < total:
                raise Stopped(stop)


def _step(
    state: TrainState, phase: Phase, reals: Minibatches, team: Team, stopped: list[int]
) -> tuple[dict[str, Tensor], int]:
    """One step: its terms, and the signal that asked any process of the team to stop, or 0."""
    with enough_memory(partial(step_advice, state.config, phase, team.size)):
        terms = train_step(state, partial(reals.at, phase), phase, team)
    return terms, team.largest(stopped[0] if stopped else team.left_alone())


def crossed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; a batch seldom hits it exactly."""
    return before // every != now // every
