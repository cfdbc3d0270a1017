"""How fast is a training step of the demo at 32x32 on a machine that is not idle, and are its threads chosen well?

Alone, beside one busy process, beside two: images per second with one thread, with all, and with what a run that began
then would choose (progan/threads.py, whose own words are printed). Processes of one thread and of all take turns, round
by round; so does one whose waiting threads spin, as OpenMP's do unless told not to. Run it with nothing else at work.

    python benchmarks/busy.py [--rounds 8] [--formats fp32 bf16]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from overhead import Side

from progan.presets import named_preset
from progan.support.workers import cores
from progan.threads import pick_threads

LOADS = {"alone": 0, "beside one busy process": 1, "beside two": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--formats", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--choose", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.choose:
        config = replace(named_preset("demo").config, precision=args.choose)
        print(pick_threads(config, torch.device("cpu")))
        return
    for fmt in args.formats:
        measure(fmt, args.rounds)


def measure(fmt: str, rounds: int) -> None:
    batch = named_preset("demo").config.schedule.batch[4]
    here = Path(__file__).resolve().parents[1]
    passive = {"OMP_WAIT_POLICY": "PASSIVE"}  # as the command line sets it
    sides = {threads: Side(here, threads, **passive) for threads in (1, cores())} | {0: Side(here, cores())}
    for side in sides.values():
        side.ask(networks="demo", pixels=32, format=fmt)
    print(f"| {fmt}, images/s | one thread | all {cores()} | all, spinning | chosen | of the better | of the idle |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    idle = 0.0
    for load, count in LOADS.items():
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            time.sleep(1)
            command = [sys.executable, __file__, "--choose", fmt]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | passive)
            chosen = int(run.stdout)
            speeds: dict[int, list[float]] = {side: [] for side in sides}
            for _ in range(rounds):
                for which, side in sides.items():
                    speeds[which].append(batch * 1e3 / side.ask()["ms"])
        finally:
            for process in busy:
                process.kill()
        found = {which: statistics.median(of) for which, of in speeds.items()}
        idle = idle or found[chosen]
        better = max(found[1], found[cores()])
        cells = [f"{found[which]:.1f}" for which in sides]
        cells += [f"{chosen}: {found[chosen]:.1f}", f"{found[chosen] / better:.2f}"]
        print(f"| {load} | {' | '.join(cells)} | {found[chosen] / idle:.2f} |", flush=True)
    for side in sides.values():
        side.process.kill()


if __name__ == "__main__":
    main()
