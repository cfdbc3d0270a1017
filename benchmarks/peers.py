"""How do other PyTorch implementations compare? A clone of one of them is trained side by side with progan.

Speed: a training step of each (D, moving average, G) at several resolutions, full networks of the same widths, in turn,
round by round. Quality in equal seconds: from nothing on the same images, with the same widths, minibatch and threads,
in turn, slice by slice, the peer with its own settings and with those of progan's `demo` preset; every schedule is
scaled to fill the seconds, by the speeds measured before. Then `progan evaluate` measures images of each. On the CPU.

    python benchmarks/peers.py --peer CLONE --data DIR --out OUT [--seconds 330] [--resolution 32] [--only speed]

CLONE: your own clone of akanimax/pro_gan_pytorch or facebookresearch/pytorch_GAN_zoo; it is not changed. Writes
peers.json, .md and .png; the same command goes on with what is missing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.clones import commit, recognise
from peers.job import Job
from peers.report import write_report
from peers.work import running

from progan.config import DiscriminatorConfig, GeneratorConfig, ScheduleConfig, TrainConfig
from progan.data.store.pyramid import ImagePyramid
from progan.presets import PRESETS
from progan.schedule import Schedule
from progan.support.device import machine, pick_precision
from progan.support.errors import ConfigError, DataError, RunError, UserError
from progan.support.files import make_folder, write_json
from progan.support.run_files import read_lines

SPEED = {"fmap_base": 2048, "fmap_max": 128}  # and a minibatch of 16, as benchmarks/train_step.py
SPEED_BATCH = 16
STEPS_PER_TURN = 2  # of which the last is timed
PACE_TURNS, PACE_SECONDS = 3, 0.5
CPU = torch.device("cpu")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=["speed", "quality"], help="one of the two questions")
    parser.add_argument("--seconds", type=float, default=330.0, help="of training, for each")
    parser.add_argument("--slice", type=float, default=10.0, help="seconds of one turn")
    parser.add_argument("--resolution", type=int, default=32, help="of the images that are learned")
    parser.add_argument("--images", type=int, default=6000, help="that are measured of each")
    parser.add_argument("--pixels", type=int, nargs="+", default=[16, 32, 64], help="where speed is measured")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        compare(args)
    except UserError as error:
        say(f"peers.py: {error}")
        return 2
    except KeyboardInterrupt:
        say("peers.py: interrupted")
        return 130
    return 0


def compare(args: argparse.Namespace) -> None:
    """Both questions, as far as they are asked; raises UserError for what cannot be done."""
    for name, least in (("seconds", 1), ("slice", 0.1), ("images", 16), ("rounds", 1), ("threads", 1)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name}: {getattr(args, name)} is not allowed; use {least} or more")
    peer = recognise(args.peer)
    data = ImagePyramid.open(args.data)
    for px in (args.resolution, *args.pixels):
        if px < 8 or px.bit_count() != 1:
            raise ConfigError(f"--resolution, --pixels: {px} is not allowed; use a power of two from 8 up")
    if args.resolution not in data.resolutions or args.resolution < 16:
        allowed = ", ".join(str(r) for r in data.resolutions if r >= 16)
        raise DataError(f"--resolution: {args.resolution} cannot be had of {args.data}; use one of {allowed}")
    if data.channels != 3:
        raise DataError(f"--data: {args.data} has {data.channels} channels; give one of RGB images")
    make_folder("--out", args.out)
    about = {"peer": peer, "commit": commit(args.peer), "machine": machine(CPU) | {"threads": args.threads}}
    found = {}
    if args.only != "quality":
        found["speed"] = [speed(args, peer, px, about) for px in args.pixels]
    if args.only != "speed":
        found["quality"] = quality(args, peer, data, about)
    reals = data.read(np.arange(min(32, len(data))), args.resolution)
    write_report(args.out, about | found, reals)


def piece(path: Path, key: dict[str, Any], make: Callable[[], Any]) -> Any:
    """What was found before, or is found now; raises ConfigError when the folder is another comparison's."""
    key = json.loads(json.dumps(key))  # as it will be read back
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["key"] != key:
            raise ConfigError(f"--out: {path} is of a comparison with other settings; give another folder")
        return kept["found"]
    found = make()
    make_folder("--out", path.parent)
    write_json(path, {"key": key, "found": found})
    return json.loads(json.dumps(found))


def speed(args: argparse.Namespace, peer: str, px: int, about: dict[str, Any]) -> dict[str, Any]:
    """Steps at one resolution: {"pixels", "contenders": {name: ...}, "ratios": peer's seconds over ours}."""
    formats = ["fp32"] + ["bf16"] * (pick_precision("auto", CPU) == "bf16")
    shape = {"resolution": px} | SPEED
    config = TrainConfig(
        g=GeneratorConfig(**shape),
        d=DiscriminatorConfig(**shape),
        schedule=ScheduleConfig(growing=False, batch={4: SPEED_BATCH}),
    )
    common = {"threads": args.threads}
    jobs = [Job(f"progan-{form}", "progan", replace(config, precision=form), **common) for form in formats]
    jobs.append(Job("peer-fp32", peer, config, args.peer, own=True, **common))

    def measure() -> dict[str, Any]:
        seconds: dict[str, list[float]] = {job.name: [] for job in jobs}
        with running(jobs, args.out / "logs") as workers:
            for turn in range(args.rounds + 1):
                for worker in workers:
                    spent = worker.turn(steps=STEPS_PER_TURN)
                    if turn:  # the first round warms up
                        seconds[worker.job.name].append(spent[-1])
                say(f"speed at {px} px: {turn} of {args.rounds} rounds")
            facts = {worker.job.name: worker.finish() for worker in workers}
        of_peer = seconds["peer-fp32"]
        return {
            "pixels": px,
            "minibatch": SPEED_BATCH,
            **SPEED,
            "contenders": {
                name: facts[name] | {"img_per_s": round(SPEED_BATCH / statistics.median(times), 2), "seconds": times}
                for name, times in seconds.items()
            },
            "peer_seconds_over_progan": {
                form: spread([a / b for a, b in zip(of_peer, seconds[f"progan-{form}"], strict=True)])
                for form in formats
            },
        }

    key = {**about, "px": px, "rounds": args.rounds, "formats": formats, **SPEED}
    return dict(piece(args.out / f"speed-{px}.json", key, measure))


def quality(args: argparse.Namespace, peer: str, data: ImagePyramid, about: dict[str, Any]) -> dict[str, Any]:
    """Training in turn, and what `progan evaluate` says of each: {"seconds", ..., "contenders": {name: ...}}."""
    config = demo(args, data)
    common = {"data": args.data, "seconds": args.seconds, "threads": args.threads}
    names = ("seconds", "slice", "resolution", "images", "threads", "seed")
    key = {**about, **{name: getattr(args, name) for name in names}, "data": data.hash}

    def train() -> dict[str, Any]:
        ours, theirs = paces(args, peer, config)
        jobs = [
            Job("progan", "progan", config, pace=ours, **common),
            Job("peer-own", peer, config, args.peer, own=True, pace=theirs, **common),
            Job("peer-ours", peer, config, args.peer, pace=theirs, **common),
        ]
        with running(jobs, args.out / "logs") as workers:
            until = 0.0
            while until < args.seconds:
                until = min(args.seconds, until + args.slice)
                for worker in workers:
                    worker.train_until(until)
                say(f"trained for {until:g} of {args.seconds:g} seconds each")
            return {
                worker.job.name: {"seconds": round(worker.trained, 2)}
                | worker.finish((args.images, args.out / "fakes" / worker.job.name))
                for worker in workers
            }

    contenders = piece(args.out / "trained.json", key, train)
    for name, row in contenders.items():
        row.update(piece(args.out / "measured" / name / "measured.json", key, partial(measured, args, name)))
    fmaps = {"fmap_base": config.g.fmap_base, "fmap_max": config.g.fmap_max}
    return key | fmaps | {"minibatch": config.schedule.batch[4], "contenders": contenders}


def demo(args: argparse.Namespace, data: ImagePyramid) -> TrainConfig:
    """The `demo` preset at the resolution, without labels, for the peers are not given any."""
    config = PRESETS["demo"].config
    schedule = config.schedule
    full = Schedule(schedule, args.resolution).first_full_nimg()
    return replace(
        config,
        g=replace(config.g, resolution=args.resolution),
        d=replace(config.d, resolution=args.resolution),
        schedule=replace(schedule, total_nimg=max(schedule.total_nimg, full + schedule.stable_nimg)),
        labels="ignore",
        seed=args.seed,
        device="cpu",
        precision=pick_precision("auto", CPU),
    )


def paces(args: argparse.Namespace, peer: str, config: TrainConfig) -> tuple[tuple[float, ...], ...]:
    """Seconds per image of a step at each resolution, 4x4 first: progan's and the peer's, measured in turn."""
    found = []
    for px in config.g.resolutions:
        shape = {"g": replace(config.g, resolution=px), "d": replace(config.d, resolution=px)}
        here = replace(config, **shape)
        jobs = [Job("progan", "progan", here), Job("peer", peer, here, args.peer)]
        times: list[list[float]] = [[], []]
        with running([replace(job, threads=args.threads) for job in jobs], args.out / "logs") as workers:
            for turn in range(PACE_TURNS + 1):
                for worker, spent in zip(workers, times, strict=True):
                    seconds = worker.turn(seconds=PACE_SECONDS, steps=2)
                    if turn:
                        spent += seconds[1:]
        found.append(tuple(statistics.median(spent) / config.schedule.batch[4] for spent in times))
        say(f"at {px} px: progan {1 / found[-1][0]:.0f} images per second, the peer {1 / found[-1][1]:.0f}")
    return tuple(zip(*found, strict=True))


def measured(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """SWD and MS-SSIM of a folder of images, by the command that anybody would use."""
    out = args.out / "measured" / name
    make_folder("--out", out)
    (out / "metrics.jsonl").unlink(missing_ok=True)
    what = ["--fakes", args.out / "fakes" / name, "--data", args.data, "--images", args.images, "--out", out]
    words = map(str, ["evaluate", *what, "--metrics", "swd,ms_ssim", "--device", "cpu"])
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    if subprocess.run([sys.executable, "-m", "progan", *words], env=environment).returncode:
        raise RunError(f"{out}: progan evaluate did not measure it; run the same command again")
    rows = {row["metric"]: row for row in read_lines(out / "metrics.jsonl")}
    return {
        name: {"values": row["values"], "spread": row["spread"], "reals": row.get("floor") or row["reals"]}
        for name, row in rows.items()
    }


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": round(statistics.median(ratios), 2),
        "min": round(min(ratios), 2),
        "max": round(max(ratios), 2),
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
