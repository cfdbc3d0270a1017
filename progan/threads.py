"""How many of the CPU's threads a run computes with: what a few of its own steps cost decides, once."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from progan.config import TrainConfig
from progan.run.dry_run import enough_memory, step_advice
from progan.run.state import TrainState
from progan.schedule import Phase, Schedule
from progan.step import train_step
from progan.support.malloc import keep_freed_memory
from progan.support.terminal import say

ROUNDS = 5
LONG = 4.0  # seconds of a step whose multiplies fill all cores, whatever else runs
GAIN = 0.9  # of the time with one thread that more must take at most; else they are left to others


def pick_threads(config: TrainConfig, device: torch.device) -> int:
    """The config's threads; 0 becomes one or all that PyTorch has, by steps at the full resolution with either.

    All threads of a step wait for the slowest, thousands of times: beside another busy process two can take ten times
    as long as one. Steps are timed in turn, with images of noise. 0 on GPUs, whose host has little to compute.
    """
    every = torch.get_num_threads()
    if config.threads or device.type != "cpu":
        return config.threads
    if every == 1:
        return 1
    keep_freed_memory()
    try:
        alone, together = _timed(config, every)
    finally:
        torch.set_num_threads(every)
    chosen = every if together < GAIN * alone else 1
    if alone < float("inf"):
        size = f"{config.g.resolution}x{config.g.resolution}"
        say(
            f"a step at {size} takes {alone * 1e3:.0f} ms with one thread and {together * 1e3:.0f} ms with {every}:"
            f" computing with {chosen}",
            error=True,
        )
    return chosen


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """Inside, PyTorch computes with so many threads; 0 leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(config: TrainConfig, every: int) -> tuple[float, float]:
    """Seconds of a step with one thread, or infinity where that is not worth the wait, and with so many."""
    schedule = Schedule(config.schedule, config.g.resolution)
    nimg = schedule.stable_from_nimg(config.g.resolution)
    phase = schedule.at(nimg)
    state = TrainState.create(config, torch.device("cpu"))
    seconds: dict[int, list[float]] = {every: [], 1: []}
    with enough_memory(partial(step_advice, config, phase, 1)):
        if _step(state, phase, nimg, every) > LONG:  # the first, which also records
            return float("inf"), 0.0
        for _ in range(ROUNDS):
            for threads, taken in seconds.items():
                taken.append(_step(state, phase, nimg, threads))
    return statistics.median(seconds[1]), statistics.median(seconds[every])


def _step(state: TrainState, phase: Phase, nimg: int, threads: int) -> float:
    torch.set_num_threads(threads)
    shape = (phase.batch, state.config.g.channels, phase.resolution, phase.resolution)
    labels = torch.zeros(phase.batch, state.config.g.label_dim) if state.config.g.label_dim else None
    images = torch.rand(shape) * 2 - 1
    state.nimg = nimg
    start = time.perf_counter()
    train_step(state, lambda _: (images, labels), phase)
    return time.perf_counter() - start
