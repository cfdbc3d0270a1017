"""What surrounds the multiplies: operations launched and milliseconds of a training step, with one thread.

Steps of the demo's networks at each resolution; with --against, those of another checkout of this repository too, of
the commit before a change, say: in processes of their own that take turns, round by round. Prints a table; a ratio is
the median of the rounds' own.

    python benchmarks/overhead.py [--against FOLDER] [--pixels 4 8 16 32] [--formats fp32 bf16] [--networks benchmark]

--networks benchmark takes the widths and the minibatch of benchmarks/train_step.py in place of the demo's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from progan.config import DiscriminatorConfig, GeneratorConfig, ScheduleConfig, TrainConfig
from progan.presets import named_preset
from progan.run.state import TrainState
from progan.schedule import Schedule
from progan.step import train_step
from progan.support.malloc import keep_freed_memory

HERE = Path(__file__).resolve().parents[1]
WARM, STEPS = 3, 5  # steps before a measurement begins, and of each round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of progan")
    parser.add_argument("--pixels", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--formats", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--networks", default="demo", choices=["demo", "benchmark"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    sides = {"this": Side(HERE)} | ({"that": Side(args.against.resolve())} if args.against else {})
    print(
        "| pixels | format | launches | ms |"
        + (" launches of that | ms of that | launches | ms, ratio |" * bool(args.against))
    )
    print("|---|---|---:|---:|" + "---:|---:|---:|---|" * bool(args.against))
    for fmt in args.formats:
        for px in args.pixels:
            begun = {name: side.ask(networks=args.networks, pixels=px, format=fmt) for name, side in sides.items()}
            times: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(args.rounds):
                for name, side in sides.items():
                    times[name].append(side.ask()["ms"])
            print(row(px, fmt, {name: about["launches"] for name, about in begun.items()}, times))
    for side in sides.values():
        side.process.kill()


def row(px: int, fmt: str, launches: dict[str, int], times: dict[str, list[float]]) -> str:
    cells = [str(px), fmt]
    for name in times:
        cells += [str(launches[name]), f"{statistics.median(times[name]):.1f}"]
    if "that" in times:
        ratios = sorted(a / b for a, b in zip(times["this"], times["that"], strict=True))
        cells.append(f"{launches['this'] / launches['that']:.2f}")
        cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return f"| {' | '.join(cells)} |"


class Side:
    """A process that runs steps of one checkout when asked, and computes nothing meanwhile."""

    def __init__(self, checkout: Path, threads: int = 1, **environment: str) -> None:
        place = {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)} | environment
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            env=os.environ | place,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **what: Any) -> dict[str, Any]:
        """Begin steps of a kind, or take the next round of them."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(what), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


def serve() -> None:
    """Answer the other process's lines with lines of JSON."""
    keep_freed_memory()  # as training does
    step: Callable[[], None] | None = None
    for line in sys.stdin:
        what = json.loads(line)
        if what:
            step = steps_of(**what)
            for _ in range(WARM):
                step()
            with CountLaunches() as counter:
                step()
            answer: dict[str, float] = {"launches": counter.total}
        else:
            assert step is not None
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            answer = {"ms": (time.perf_counter() - start) / STEPS * 1e3}
        print(json.dumps(answer), flush=True)


def steps_of(networks: str, pixels: int, format: str) -> Callable[[], None]:
    """A step at a resolution that is in, always at the same moment of the run."""
    if networks == "demo":
        config = named_preset("demo").config
    else:
        shape = {"resolution": pixels, "fmap_base": 2048, "fmap_max": 128}
        config = TrainConfig(
            g=GeneratorConfig(**shape), d=DiscriminatorConfig(**shape), schedule=ScheduleConfig(batch={4: 16})
        )
    config = replace(config, precision=format)  # type: ignore[arg-type]
    schedule = Schedule(config.schedule, config.g.resolution)
    nimg = schedule.stable_from_nimg(pixels)
    phase = schedule.at(nimg)
    assert (phase.resolution, phase.alpha) == (pixels, 1.0)
    state = TrainState.create(config, torch.device("cpu"))
    reals = torch.rand(phase.batch, 3, pixels, pixels) * 2 - 1

    def step() -> None:
        state.nimg = nimg
        train_step(state, lambda nimg: (reals, None), phase)

    return step


class CountLaunches(TorchDispatchMode):
    """Operations that compute or copy, those of backward passes too: what would be launched on a GPU, or more."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        views = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        if not views and "empty" not in name and "_unsafe_view" not in name and not name.startswith("profiler::"):
            self.total += 1
        return func(*args, **(kwargs or {}))


if __name__ == "__main__":
    main()
