"""What does the full 1024x1024 network cost on this machine: one training step, one generated image?

Each part runs in a process of its own, so that its peak memory is its own. Prints JSON.

    python benchmarks/full_size.py [--batch 4] [--micro-batch 4] [--resolution 1024] [--format fp32]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from train_step import cpu_name

from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.presets import PRESETS
from progan.run.dry_run import memory_bytes
from progan.run.minibatches import read_reals
from progan.run.state import TrainState
from progan.schedule import Schedule
from progan.step import train_step
from progan.support.device import pick_device, pick_precision
from progan.support.malloc import keep_freed_memory
from progan.weights import save_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--format", choices=["auto", "fp32", "tf32", "bf16"], default="auto")
    parser.add_argument("--part", choices=["step", "generate"])
    args = parser.parse_args()
    if args.part:
        shape = (args.resolution, args.batch, args.micro_batch, args.format)
        part = step(*shape) if args.part == "step" else generate(args.resolution)
        part["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
        print(json.dumps(part))
        return
    result: dict[str, object] = {
        "machine": f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "resolution": args.resolution,
    }
    for name in ("generate", "step"):
        flags = {"part": name, "batch": args.batch, "micro-batch": args.micro_batch}
        flags |= {"resolution": args.resolution, "format": args.format}
        command = [sys.executable, __file__, *(f"--{flag}={value}" for flag, value in flags.items())]
        result[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps(result, indent=2))


def step(resolution: int, batch: int, micro_batch: int, precision: str) -> dict[str, object]:
    """The first and the second step in the last phase of celebahq-1024-1gpu."""
    config = PRESETS["celebahq-1024-1gpu"].config
    device = pick_device("auto")
    keep_freed_memory()  # as training does
    config = replace(
        config,
        g=replace(config.g, resolution=resolution),
        d=replace(config.d, resolution=resolution),
        schedule=replace(config.schedule, batch={4: batch}),
        micro_batch={4: micro_batch},
        precision=pick_precision(precision, device),
    )
    schedule = Schedule(config.schedule, resolution)
    with tempfile.TemporaryDirectory() as folder:
        data = noise(Path(folder) / "data", resolution, batch)
        state = TrainState.create(config, device)
        state.nimg = schedule.first_full_nimg()
        seconds = []
        for _ in range(2):
            phase = schedule.at(state.nimg)
            start = time.perf_counter()
            terms = train_step(state, partial(read_reals, data, config, phase, device), phase)
            losses = {name: round(float(term), 4) for name, term in terms.items()}
            seconds.append(round(time.perf_counter() - start, 1))
    return {
        "batch": batch,
        "micro_batch": micro_batch or batch,
        "precision": config.precision,
        "seconds": seconds,
        "losses": losses,
        "estimated_gib": round(memory_bytes(config, resolution, micro_batch or batch) / 2**30, 2),
    }


def generate(resolution: int) -> dict[str, object]:
    """One image through the command line, weights file included."""
    from progan.cli import main as progan

    config = replace(PRESETS["celebahq-1024-1gpu"].config, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        state = TrainState.create(
            replace(config, g=replace(config.g, resolution=resolution), d=replace(config.d, resolution=resolution)),
            torch.device("cpu"),
        )
        weights = Path(folder) / "generator.safetensors"
        save_network(weights, state.g_ema)
        del state
        start = time.perf_counter()
        sys.stdout, stdout = sys.stderr, sys.stdout
        code = progan(["generate", str(weights), "--seeds", "0", "--out", str(Path(folder) / "images")])
        sys.stdout = stdout
        seconds = time.perf_counter() - start
        size = (Path(folder) / "images" / "seed0000.png").stat().st_size
    return {"exit_code": code, "seconds": round(seconds, 1), "png_bytes": size}


def noise(path: Path, resolution: int, count: int) -> ImagePyramid:
    rng = np.random.default_rng(0)
    with PyramidWriter(path, resolution=resolution, channels=3, source={"kind": "random"}) as writer:
        for _ in range(count):
            writer.append(box_pyramid(rng.integers(0, 256, (3, resolution, resolution), dtype=np.uint8)))
    return ImagePyramid.open(path)


if __name__ == "__main__":
    main()
