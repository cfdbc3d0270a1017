"""The processes of those that benchmarks/peers.py compares, each of which trains only while it is its turn."""

import multiprocessing
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peers.job import EVER, Feed, Growth, Job, TimeIsUp, Trained, Turns
from progan.images import to_pil
from progan.networks import parameter_count
from progan.run.state import TrainState
from progan.sampling.images import sample
from progan.schedule import Schedule
from progan.step import train_step
from progan.support.errors import RunError, UserError, printable
from progan.support.files import make_folder
from progan.support.malloc import keep_freed_memory

AT_ONCE = 100  # images drawn at a time
SECONDS_TO_END = 5.0  # for a process whose other end is gone, before it is ended


def train_progan(job: Job, feed: Feed) -> Trained:
    """progan's own step in a loop, as training.py has it, without what that writes down."""
    keep_freed_memory()
    schedule, factor, config = job.config.schedule, 1.0, job.config
    if job.seconds:
        _, factor = job.growth(Growth.of(config))
        stable, fade = round(schedule.stable_nimg * factor), round(schedule.fade_nimg * factor)
        total = round(schedule.total_nimg * factor) * EVER
        schedule = replace(schedule, stable_nimg=stable, fade_nimg=fade, total_nimg=total)
    else:
        schedule = replace(schedule, growing=False)
    state = TrainState.create(replace(config, schedule=schedule), torch.device("cpu"))
    phases = Schedule(schedule, config.g.resolution)
    with suppress(TimeIsUp):
        while True:
            phase = phases.at(state.nimg)
            train_step(state, lambda nimg, at=phase.resolution: (feed.take(at), None), phase)
    about = {
        "nimg": state.nimg,
        "schedule_over_preset": round(factor, 3),
        "precision": config.precision,
        "parameters": {"g": parameter_count(state.g), "d": parameter_count(state.d)},
        "drawn_from": f"its moving average ({config.ema_decay})",
        "settings": {
            "lr": config.schedule.g_lr[4],
            "average": config.ema_decay,
            "stable_nimg": schedule.stable_nimg,
            "fade_nimg": schedule.fade_nimg,
        },
    }

    def draw(count: int) -> np.ndarray:
        z, stage = torch.randn(count, config.g.z_dim), state.stage()
        return sample(state.g_ema, z, resolution=stage["resolution"], alpha=stage["alpha"], full_size=True)

    return Trained(draw, about)


def work(job: Job, pipe: Connection) -> None:
    """The process: train in turns, then draw. Over the pipe come turns (seconds, steps), None at the end of training,
    and then (count, folder) of images to draw, or None; back go the seconds of each step, what came of it, or what
    went wrong as a text."""
    from peers.clones import PEERS  # here, for a clone's trainer needs what stands in job.py alone

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other end's to answer, and ends this one too
    sys.dont_write_bytecode = True  # a clone stays as it is
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.config.seed)
    np.random.seed(job.config.seed)
    random.seed(job.config.seed)
    train = train_progan if job.who == "progan" else PEERS[job.who].train
    with job.log.open("w", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        try:
            trained = train(job, Feed(job, Turns(pipe)))
            order = pipe.recv()
            if order is not None:
                write_images(trained.draw, *order)
            pipe.send(trained.about)
        except (EOFError, BrokenPipeError):  # the other end is gone
            return
        except UserError as error:
            pipe.send(str(error))
        except Exception as error:
            traceback.print_exc()
            pipe.send(f"{job.name} failed ({type(error).__name__}: {printable(error)}); see {job.log}")


@torch.no_grad()
def write_images(draw: Callable[[int], np.ndarray], count: int, folder: Path) -> None:
    """PNG files, count of them; those that a broken attempt left here go first."""
    make_folder("--out", folder)
    for old in folder.glob("[0-9]" * 6 + ".png"):
        old.unlink()
    for start in range(0, count, AT_ONCE):
        for i, image in enumerate(draw(min(AT_ONCE, count - start))):
            to_pil(image).save(folder / f"{start + i:06d}.png")


class Worker:
    """The process of a job. It is still, but for its turns."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.job, self.trained = job, 0.0
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=work, args=(job, end), daemon=True)
        self.process.start()
        end.close()

    def turn(self, *, seconds: float = 0.0, steps: int = 1) -> list[float]:
        """Let it train for so long, and for so many steps at least; the seconds of each step."""
        self.pipe.send((seconds, steps))
        return list(self._answer())

    def train_until(self, seconds: float) -> None:
        """Let it train until it has trained for so long in all its turns."""
        if self.trained < seconds:
            self.trained += sum(self.turn(seconds=seconds - self.trained))

    def finish(self, images: tuple[int, Path] | None = None) -> dict[str, Any]:
        """End its training, and let it draw so many images into a folder; what it says of itself."""
        self.pipe.send(None)
        self.pipe.send(images)
        return dict(self._answer())

    def _answer(self) -> Any:
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            raise RunError(f"{self.job.name}: its process ended; see {self.job.log}") from None
        if isinstance(answer, str):
            raise RunError(answer)
        return answer


@contextmanager
def running(jobs: Sequence[Job], out: Path) -> Iterator[list[Worker]]:
    """Processes of jobs, which end with the block; what they print goes into a file of each in `out`."""
    make_folder("--out", out)
    workers = [Worker(replace(job, log=out / f"{job.name}.log")) for job in jobs]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.process.join(SECONDS_TO_END)  # it clears away what its peer has written
            worker.process.terminate()
            worker.process.join()
