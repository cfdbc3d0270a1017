"""How fast is a training step, and how much of the machine's convolution peak does it use?

Steps of every kind run in turn, round by round, so that a machine that speeds up or slows down treats all alike; the
peak is the best plain 3x3 convolution of the same number format, measured in the same rounds. Prints JSON.

    python benchmarks/train_step.py [--rounds 7] [--pixels 16 32 64] [--formats fp32 tf32 bf16] [--device cuda]
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from progan.config import DiscriminatorConfig, GeneratorConfig, ScheduleConfig, TrainConfig
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.run.minibatches import read_reals
from progan.run.state import TrainState
from progan.schedule import Schedule
from progan.step import train_step
from progan.support.arithmetic import number_format
from progan.support.device import pick_device, pick_precision
from progan.support.errors import ConfigError
from progan.support.flops import CountFlops
from progan.support.malloc import keep_freed_memory

BATCH = 16
PEAK_SHAPES = [(128, 32), (128, 16), (64, 64), (256, 16)]  # maps, pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pixels", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--formats", nargs="+", default=["fp32", "bf16"], choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    try:
        device = pick_device(args.device)
        for fmt in args.formats:
            pick_precision(fmt, device)
    except ConfigError as error:
        parser.error(str(error))
    keep_freed_memory()  # as training does
    with tempfile.TemporaryDirectory() as folder:
        data = random_data(Path(folder) / "data", max(args.pixels))
        keys = [(form, fmt, px) for px in args.pixels for fmt in args.formats for form in ("fused", "plain")]
        steps = {key: Step(*key, data, device) for key in keys}
        peaks = {
            fmt: [partial(convolve, fmt, *peak_tensors(fmt, *shape, device)) for shape in PEAK_SHAPES]
            for fmt in args.formats
        }
        seconds: dict[tuple[str, str, int], list[float]] = {key: [] for key in keys}
        reading: dict[int, list[float]] = {px: [] for px in args.pixels}
        peak: dict[str, float] = dict.fromkeys(args.formats, 0.0)
        for turn in range(args.rounds + 1):
            for fmt in args.formats:
                for convolution, (maps, px) in zip(peaks[fmt], PEAK_SHAPES, strict=True):
                    flops = 2 * BATCH * 9 * maps**2 * px**2
                    peak[fmt] = max(peak[fmt], *(flops / timed(convolution, device) for _ in range(3)))
            for key, step in steps.items():
                spent = timed(step.run, device)
                if turn:  # the first round warms up
                    seconds[key].append(spent)
            for px in args.pixels:
                if turn:
                    reading[px].append(timed(steps["fused", args.formats[0], px].read, device))
    report(args.formats, args.pixels, device, steps, seconds, reading, peak)


class Step:
    """Training steps of one kind, always at the same moment of the run."""

    def __init__(self, form: str, fmt: str, px: int, data: ImagePyramid, device: torch.device) -> None:
        shape = {"resolution": px, "fmap_base": 2048, "fmap_max": 128, "fused_scaling": form == "fused"}
        config = TrainConfig(
            g=GeneratorConfig(**shape),
            d=DiscriminatorConfig(**shape),
            schedule=ScheduleConfig(growing=False, batch={4: BATCH}),
            precision=fmt,  # type: ignore[arg-type]
        )
        self.fmt = fmt
        self.state = TrainState.create(config, device)
        self.phase = Schedule(config.schedule, px).at(0)
        self.reals_at = partial(read_reals, data, config, self.phase, device)
        with CountFlops() as counter:
            self.run()
        self.flops = counter.total

    def run(self) -> None:
        with number_format(self.fmt, tuned=True):  # as training does
            train_step(self.state, self.reals_at, self.phase)

    def read(self) -> None:
        self.reals_at(self.state.nimg)


def report(formats, pixels, device, steps, seconds, reading, peak) -> None:  # type: ignore[no-untyped-def]
    rows = []
    for (form, fmt, px), times in seconds.items():
        middle = statistics.median(times)
        rate = steps[form, fmt, px].flops / middle
        rows.append(
            {
                "pixels": px,
                "format": fmt,
                "form": form,
                "img_per_s": round(BATCH / middle, 1),
                "gflop_per_s": round(rate / 1e9, 1),
                "share_of_peak": round(rate / peak[fmt], 3),
            }
        )

    def ratio(slow: tuple[str, str, int], fast: tuple[str, str, int]) -> dict[str, float]:
        pairs = sorted(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))
        return {"median": round(statistics.median(pairs), 2), "min": round(pairs[0], 2), "max": round(pairs[-1], 2)}

    result = {
        "machine": f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}",
        "bf16_in_hardware": pick_precision("auto", device) == "bf16",
        "peak_gflop_per_s": {fmt: round(value / 1e9, 1) for fmt, value in peak.items()},
        "steps": rows,
        "fused_over_plain": {
            f"{fmt} {px}": ratio(("plain", fmt, px), ("fused", fmt, px)) for fmt in formats for px in pixels
        },
        "reading_share_of_step": {
            str(px): round(statistics.median(reading[px]) / statistics.median(seconds["fused", formats[0], px]), 4)
            for px in pixels
        },
    }
    for fmt in ("tf32", "bf16"):
        if {"fp32", fmt} <= set(formats):
            result[f"{fmt}_over_fp32"] = {
                f"{form} {px}": ratio((form, "fp32", px), (form, fmt, px))
                for form in ("fused", "plain")
                for px in pixels
            }
    print(json.dumps(result, indent=2))


def random_data(path: Path, resolution: int) -> ImagePyramid:
    rng = np.random.default_rng(0)
    with PyramidWriter(path, resolution=resolution, channels=3, source={"kind": "random"}) as writer:
        for _ in range(2000):
            writer.append(box_pyramid(rng.integers(0, 256, (3, resolution, resolution), dtype=np.uint8)))
    return ImagePyramid.open(path)


def peak_tensors(fmt: str, maps: int, px: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = torch.bfloat16 if fmt == "bf16" else torch.float32
    shapes = ((BATCH, maps, px, px), (maps, maps, 3, 3))
    x, w = (torch.randn(shape, device=device, dtype=dtype) for shape in shapes)
    return x.to(memory_format=torch.channels_last), w.to(memory_format=torch.channels_last)


@torch.no_grad()
def convolve(fmt: str, x: torch.Tensor, w: torch.Tensor) -> None:
    with number_format(fmt, tuned=True):
        F.conv2d(x, w, padding=1)


def timed(work: Callable[[], None], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
