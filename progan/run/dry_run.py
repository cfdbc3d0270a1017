"""What a run will do and need, before it does it: `progan train --dry-run`."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from rich.table import Table
from torch import nn

from progan.config import TrainConfig
from progan.networks import Discriminator, Generator, parameter_count
from progan.run.team import group_size, images_at_once
from progan.schedule import Phase, Schedule
from progan.support.device import pick_device
from progan.support.errors import RunError
from progan.support.progress import duration

PROCESS_BYTES = 400 * 2**20
ACTIVATIONS = 7
DISK_BYTES_PER_S = 200_000_000  # that a modest disk takes
# What an error other than torch.OutOfMemoryError says: on CPUs (Linux, Windows), Apple's devices, in CUDA's libraries.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")


def plan_table(config: TrainConfig) -> Table:
    """The phases of a run: resolution, images, batch, learning rate, parameters at work, estimated memory."""
    table = Table(title=f"{config.schedule.total_nimg / 1000:g} kimg to {config.g.resolution}x{config.g.resolution}")
    for name in ("resolution", "phase", "kimg", "batch", "lr", "G, D (M)", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    table.caption = (
        f"G, D: million parameters at work; memory: estimated, at the peak of a step\n{_disk(config)}{_threads(config)}"
    )
    schedule = Schedule(config.schedule, config.g.resolution)
    for span in schedule.phases():
        phase = schedule.at(span.start_nimg)
        g, d = working_parameters(config, phase.resolution)
        table.add_row(
            f"{phase.resolution}x{phase.resolution}",
            "fade" if span.fading else "stable",
            f"{span.start_nimg / 1000:g}-{span.stop_nimg / 1000:g}",
            str(phase.batch),
            f"{phase.g_lr:g}" if phase.g_lr == phase.d_lr else f"{phase.g_lr:g}, {phase.d_lr:g}",
            f"{g / 1e6:.2f}, {d / 1e6:.2f}",
            f"{memory_bytes(config, phase.resolution, images_at_once(config, phase)) / 2**30:.1f} GiB",
        )
    return table


def disk_bytes(config: TrainConfig) -> tuple[int, int]:
    """What a whole run writes in checkpoints and snapshots, and what of it stays, without the pictures."""
    with torch.device("meta"):
        g, d = parameter_count(Generator(config.g)), parameter_count(Discriminator(config.d))
    checkpoint = 4 * (4 * g + 3 * d)  # weights and Adam's two moments of each; the moving average of G
    total = config.schedule.total_nimg
    saved, snapshots = (math.ceil(total / every) for every in (config.checkpoint_nimg, config.snapshot_nimg))
    kept = min(saved, 2) + (total // config.keep_every_nimg if config.keep_every_nimg else 0)
    return checkpoint * saved + 4 * g * snapshots, checkpoint * kept + 4 * g * snapshots


def _disk(config: TrainConfig) -> str:
    written, kept = disk_bytes(config)
    seconds = written / DISK_BYTES_PER_S
    return (
        f"disk: {kept / 2**30:.3g} GiB stay of {written / 2**30:.3g} written, {duration(seconds)} at"
        f" {DISK_BYTES_PER_S // 10**6} MB/s (1% of {duration(100 * seconds)})"
    )


def _threads(config: TrainConfig) -> str:
    every = torch.get_num_threads()
    if pick_device(config.device).type != "cpu":
        return ""
    if config.threads or every == 1:
        return f"\nthreads: {config.threads or 1}"
    size = f"{config.g.resolution}x{config.g.resolution}"
    return f"\nthreads: one or all {every}, by what steps at {size} cost with either when the run begins"


def working_parameters(config: TrainConfig, resolution: int) -> tuple[int, int]:
    """Parameters of G and D that take part at a resolution, with the fading-out colour layers."""
    with torch.device("meta"):
        g, d = Generator(config.g), Discriminator(config.d)

    def count(network: nn.Module) -> int:
        names = {str(r) for r in config.g.resolutions if r > resolution}
        return sum(p.numel() for name, p in network.named_parameters() if not names & set(name.split(".")))

    return count(g), count(d)


def seconds_left(config: TrainConfig, nimg: int, img_per_s: float) -> float:
    """Time to the end of the run, from the speed at `nimg` and the work that each later resolution takes."""
    now = Schedule(config.schedule, config.g.resolution).at(min(nimg, config.schedule.total_nimg - 1)).resolution
    return work_left(config, nimg) / (image_work(config, now) * img_per_s)


def work_left(config: TrainConfig, nimg: int) -> int:
    """Work from `nimg` to the end of the run, in the unit of `image_work`."""
    spans = Schedule(config.schedule, config.g.resolution).phases()
    return sum(
        max(0, span.stop_nimg - max(nimg, span.start_nimg)) * image_work(config, span.resolution) for span in spans
    )


def image_work(config: TrainConfig, resolution: int) -> int:
    """Multiplies that one image costs D at a resolution, and those of the 8x8 block for what is not multiplying."""

    def multiplies(r: int) -> int:
        maps, half = config.d.fmaps_at(r), config.d.fmaps_at(max(4, r // 2))
        return r * r * maps * (9 * maps + 4 * half)

    return sum(multiplies(r) for r in config.d.resolutions if r <= resolution) + multiplies(8)


def memory_bytes(config: TrainConfig, resolution: int, batch: int) -> int:
    """Peak memory of a training step, estimated: the process, weights with gradients, Adam and average, activations.

    The penalty's double backward keeps about ACTIVATIONS tensors for each layer of D; fitted to a step at 1024x1024 on
    the CPU in float32 (docs/performance.md).
    """
    with torch.device("meta"):
        weights = 4 * (5 * parameter_count(Generator(config.g)) + 4 * parameter_count(Discriminator(config.d)))
    values = 0
    for r in config.d.resolutions:
        if r <= resolution:
            values += 2 * r * r * config.d.fmaps_at(r) + (r // 2) ** 2 * config.d.fmaps_at(max(4, r // 2))
    width = 2 if config.precision == "bf16" else 4
    return PROCESS_BYTES + weights + ACTIVATIONS * values * width * batch


@contextmanager
def enough_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Raise RunError with that sentence in place of any error that says that there is no memory left."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        kinds, said = (MemoryError, torch.OutOfMemoryError), str(error)
        if isinstance(error, kinds) or any(words in said for words in NO_MEMORY):
            raise RunError(advice()) from None
        raise


def step_advice(config: TrainConfig, phase: Phase, processes: int) -> str:
    """What to do when a training step finds no memory."""
    images, least = images_at_once(config, phase, processes), group_size(phase.batch, config)
    estimate = memory_bytes(config, phase.resolution, images) / 2**30
    less = f"pass --micro-batch {max(least, images // 2)}" if images > least else "take a device that has more"
    return (
        f"micro_batch: {images} images at once at {phase.resolution}x{phase.resolution} need more memory than there is"
        f" (estimated: {estimate:.1f} GiB); {less}, and the same command continues at the last checkpoint"
    )


def metrics_advice() -> str:
    """What to do when a measurement finds no memory."""
    return "metrics: they need more memory than there is; pass a smaller --metrics-images, or leave out --metrics"
