"""Does everything that this repository promises of GPUs hold on this one? Tests, the same bits, NCCL, speed.

Writes what passed, failed and was skipped, with the machine, the versions and the figures, as JSON, and prints a table.
Without a GPU: one sentence, exit code 2, nothing written. Exit code 1 if anything failed, which is written too.

    make gpu-check
    python benchmarks/gpu_check.py [--out docs/gpu.json] [--device cuda] [--small]

--device cpu --small tries this program itself, with little work; what it writes says that it was no GPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import isclose
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import torch
from rich.table import Table
from train_step import random_data

from progan.support.arithmetic import CUBLAS
from progan.support.device import machine, pick_device, pick_precision
from progan.support.errors import ConfigError, UserError, printable
from progan.support.files import write_json
from progan.support.terminal import say
from progan.weights import load_network

HERE = Path(__file__).resolve().parents[1]
GOLDEN = "tests/test_networks_golden.py"
LONGEST = 3600  # seconds of one command

Verdict = Literal["passed", "failed", "skipped"]


class Failed(Exception):
    """A promise that does not hold, in words."""


class Skipped(Exception):
    """Why a check says nothing here."""


@dataclass(frozen=True)
class Found:
    """What came of one check. why: of a failure or a skip; figures: what was measured or counted."""

    name: str
    verdict: Verdict
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Work:
    """Where the checks compute, and how much."""

    device: torch.device
    folder: Path
    small: bool = False

    @property
    def processes(self) -> int:
        """How many can work at once, each with a device of its own."""
        return torch.cuda.device_count() if self.device.type == "cuda" else 2

    @property
    def formats(self) -> list[str]:
        """The number formats that the device has."""
        return [fmt for fmt in ("fp32", "tf32", "bf16") if self._has(fmt)]

    def _has(self, fmt: str) -> bool:
        if fmt == "bf16":
            return pick_precision("auto", self.device) == "bf16"
        try:
            return bool(pick_precision(fmt, self.device))  # type: ignore[arg-type]
        except ConfigError:
            return False


Check = Callable[[Work], dict[str, Any]]


def main() -> int:
    """Check, write and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "docs" / "gpu.json", help="what to write")
    parser.add_argument("--device", choices=["cuda", "mps", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="little work, to try this program")
    args = parser.parse_args()
    try:
        device = pick_device(args.device)
    except ConfigError:
        say(f"gpu_check: there is no {args.device} on this machine, so there is nothing to check", error=True)
        return 2
    if not args.out.parent.is_dir():
        say(f"gpu_check: --out: {args.out.parent} is no folder; give a file in one that is there", error=True)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        found = run_checks(CHECKS, Work(device, Path(folder), args.small))
    try:
        write_json(args.out, {"machine": about(device), "small": args.small, "checks": [asdict(one) for one in found]})
    except UserError as error:
        say(f"gpu_check: {error}", error=True)
        return 2
    say(table(found))
    say(f"written to {args.out}")
    return int(any(one.verdict == "failed" for one in found))


def run_checks(checks: dict[str, Check], work: Work) -> list[Found]:
    """Each check in turn; one that fails, in whatever way, keeps none of the others from being made."""
    found = []
    for name, check in checks.items():
        say(f"{name} ...", error=True)
        start = time.perf_counter()
        verdict: Verdict = "passed"
        why, figures = "", {}
        try:
            figures = check(work)
        except Skipped as reason:
            verdict, why = "skipped", str(reason)
        except Exception as error:  # it is what is asked about
            verdict, why = "failed", printable(error, 2000)
        found.append(Found(name, verdict, why, figures, round(time.perf_counter() - start, 1)))
    return found


def about(device: torch.device) -> dict[str, Any]:
    """The machine, its GPUs and the versions of what computes on them."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if device.type == "cuda" else []
    versions: dict[str, Any] = {"cuda": torch.version.cuda, "cudnn": None, "nccl": None}
    if gpus:
        versions |= {"cudnn": torch.backends.cudnn.version(), "nccl": ".".join(map(str, torch.cuda.nccl.version()))}
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "HEAD"], capture_output=True, text=True)
    return machine(device) | {"gpus": gpus} | versions | {"commit": commit.stdout.strip() or None}


def table(found: Sequence[Found]) -> Table:
    """A row per check, with the reason or the first of its figures."""
    rows = Table("check", "", "seconds", "", box=None, pad_edge=False)
    for one in found:
        figures = ", ".join(f"{name} {value}" for name, value in one.figures.items() if not isinstance(value, dict))
        rows.add_row(one.name, one.verdict, f"{one.seconds:g}", one.why or figures)
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# What is run


def command(*words: object, processes: int = 1, env: dict[str, str] | None = None) -> str:
    """The standard output of a Python program of its own, by torchrun if of several processes. Raises Failed."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    whole = [sys.executable, *map(str, [*torchrun, *words])]
    inherited = {name: value for name, value in os.environ.items() if name != CUBLAS}
    inherited["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [inherited.get("PYTHONPATH")])])
    done = subprocess.run(whole, capture_output=True, text=True, cwd=HERE, env=inherited | (env or {}), timeout=LONGEST)
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = next((line for line in said if line.startswith("progan: ")), said[-1] if said else "")
        raise Failed(f"{' '.join(map(str, words[:3]))} ended with {done.returncode}: {told}")
    return done.stdout


def tests(work: Work, *where: str) -> dict[str, Any]:
    """Run those tests of any device on this one: how many passed and were skipped. Raises Failed naming what failed."""
    report = work.folder / "tests.xml"
    report.unlink(missing_ok=True)
    options = ("-m", "any_device", "--device", work.device.type, f"--junitxml={report}", "-p", "no:cacheprovider")
    failed = None
    try:
        command("-m", "pytest", *options, *where)
    except Failed as error:
        failed = error
    if not report.exists():
        raise failed or Failed("pytest wrote no report")
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [case.get("name", "?") for case in cases if {"failure", "error"} & {part.tag for part in case}]
    if bad:
        raise Failed(f"{len(bad)} of {len(cases)} tests: {', '.join(bad)}")
    if failed or not cases:
        raise failed or Failed("no test was found")
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - skipped, "skipped": skipped}


def golden(work: Work) -> dict[str, Any]:
    """The networks against the official code's numbers."""
    return tests(work, GOLDEN, *(["-k", "penalty_target"] if work.small else []))


def other_tests(work: Work) -> dict[str, Any]:
    """Layers, operations, losses, steps, generation, SWD and MS-SSIM against their references."""
    return tests(work, "tests/test_losses.py") if work.small else tests(work, "tests", f"--ignore={GOLDEN}")


def same_bits(work: Work) -> dict[str, Any]:
    """With --deterministic, in every format: two runs, and one that halts halfway, end alike, byte by byte."""
    checked = {}
    for fmt in work.formats:
        once, twice, halved = (work.folder / f"{fmt}-{name}" for name in ("once", "twice", "halved"))
        train(work, once, "--precision", fmt, "--deterministic")
        train(work, twice, "--precision", fmt, "--deterministic")
        train(work, halved, "--precision", fmt, "--deterministic", share=0.5)
        train(work, halved, "--precision", fmt, "--deterministic")
        wanted = (once / "generator.safetensors").read_bytes()
        for other in (twice, halved):
            if (other / "generator.safetensors").read_bytes() != wanted:
                raise Failed(f"{other.name}: its generator is not that of {once.name}")
        checked[fmt] = "same bytes"
    return checked


def several_processes(work: Work) -> dict[str, Any]:
    """Two processes, by NCCL where they are on GPUs, train and measure as one does, to rounding."""
    if work.processes < 2:
        raise Skipped("there is one GPU, and two processes need one each")
    runs = {n: work.folder / f"by-{n}" for n in (1, 2)}
    for n, run in runs.items():
        train(work, run, "--precision", "fp32", "--deterministic", processes=n)
    alone, both = (json.loads((run / "stats.jsonl").read_text().splitlines()[0]) for run in runs.values())
    far = {name: (value, both[name]) for name, value in alone.items() if not isclose(value, both[name], rel_tol=1e-3)}
    if alone.keys() != both.keys() or far:
        raise Failed(f"the first terms differ, of one process and of two: {far}")
    measured = {n: evaluate(work, runs[1], work.folder / f"measured-{n}", n) for n in runs}
    if not isclose(*measured.values(), rel_tol=1e-4):
        raise Failed(f"MS-SSIM of one process is {measured[1]}, of two {measured[2]}")
    return {"MS-SSIM of one": measured[1], "of two": measured[2]}


def finite(work: Work) -> dict[str, Any]:
    """A run as users start it, in the format that suits the device: its weights are numbers, and its speed."""
    run = work.folder / "plain"
    train(work, run)
    g, _ = load_network(run / "generator.safetensors", "generator")
    if not all(bool(weight.isfinite().all()) for weight in g.parameters()):
        raise Failed("its weights are not finite")
    last = json.loads((run / "timing.jsonl").read_text().splitlines()[-1])
    return {"img_per_s": round(last["img_per_s"], 1)}


def speed(work: Work) -> dict[str, Any]:
    """benchmarks/train_step.py in every format that the device has."""
    size = ("--rounds", 1, "--pixels", 8) if work.small else ("--rounds", 7, "--pixels", 16, 32, 64, 128)
    formats = work.formats[:1] if work.small else work.formats
    printed = command("benchmarks/train_step.py", "--device", work.device.type, "--formats", *formats, *size)
    result = json.loads(printed)
    rates = {
        f"{row['pixels']} px {row['format']}": row["img_per_s"] for row in result["steps"] if row["form"] == "fused"
    }
    return rates | {"train_step": result}


CHECKS: dict[str, Check] = {
    "golden numbers": golden,
    "tests of any device": other_tests,
    "a run": finite,
    "the same bits with --deterministic": same_bits,
    "two processes": several_processes,
    "training steps": speed,
}


def train(work: Work, out: Path, *words: str, share: float = 1.0, processes: int = 1) -> None:
    """A run on random images, or the first share of it, in a process of its own."""
    data = work.folder / "data"
    pixels, maps, kimg = (8, 8, 0.128) if work.small else (64, 128, 10.24)
    if not data.exists():
        random_data(data, pixels)
    fixed = ["--data", data, "--out", out, "--resolution", pixels, "--batch", 16, "--device", work.device.type]
    growth = ["--stable-kimg", kimg / 10, "--fade-kimg", kimg / 10, "--total-kimg", share * kimg]
    widths = [f"--{network}.fmap-{what}" for network in "gd" for what in ("base", "max")]
    sizes = [word for flag in widths for word in (flag, 16 * maps if flag.endswith("base") else maps)]
    ticks = ["--tick-nimg", 16, "--snapshot-kimg", kimg, "--checkpoint-kimg", kimg]
    command("-m" if processes == 1 else "--module", "progan", "train", *fixed, *growth, *sizes, *ticks, *words,
            processes=processes)  # fmt: skip


def evaluate(work: Work, run: Path, out: Path, processes: int) -> float:
    """MS-SSIM of a run's images."""
    words = ["evaluate", run, "--data", work.folder / "data", "--metrics", "ms_ssim", "--out", out]
    size = ["--images", 128 if work.small else 2000, "--device", work.device.type]
    start = "-m" if processes == 1 else "--module"
    cache = {"PROGAN_CACHE": str(work.folder / f"cache-{processes}")}
    command(start, "progan", *words, *size, processes=processes, env=cache)
    value: float = json.loads((out / "metrics.jsonl").read_text())["values"][""]
    return value


if __name__ == "__main__":
    sys.exit(main())
