"""What does a fade lose, and what keeps it? A run of the demo's networks, with the paper's average and phases of
4 kimg, and branches of it from the moment before its last fade, each with one remedy, all with the same seed. Trains,
measures every snapshot, and writes remedies.json, .md and .png.

    python benchmarks/remedies.py --data DIR --out OUT [--only "short average,..."] [--images 4096]

The same command goes on where it stopped. OMP_NUM_THREADS=1 leaves the other core to others.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from progan.metrics.suite import value_title
from progan.presets import PRESETS
from progan.schedule import Schedule
from progan.studies.tables import markdown_table
from progan.support.run_files import RunFolder, read_lines

BASE = "as it is"
REMEDIES = {
    BASE: "",
    "short average": "--ema-rampup 0.05",
    "average of 0.2": "--ema-rampup 0.2",
    "Adam kept": "--ema-rampup 0.05 --optimizer-reset none",
    "third of the rate": "--ema-rampup 0.05 --schedule.g-lr 4:0.006,32:0.002 --schedule.d-lr 4:0.006,32:0.002",
    "third of G's rate": "--ema-rampup 0.05 --schedule.g-lr 4:0.006,32:0.002",
    "twice the minibatch": "--ema-rampup 0.05 --schedule.batch 4:8,32:16",
    "the penalty's norm in full": "--ema-rampup 0.05 --loss.gp-norm-at full",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(REMEDIES))
    parser.add_argument("--images", type=int, default=4096)
    args = parser.parse_args()
    config = PRESETS["demo"].config
    phases = replace(config.schedule, stable_nimg=4_000, fade_nimg=4_000, total_nimg=36_000)
    schedule = Schedule(phases, config.g.resolution)
    start = schedule.phases()[-2].start_nimg  # of the last fade
    total, every = phases.total_nimg, phases.fade_nimg // 2
    kept = [
        "--keep-every-nimg",
        start,
        "--checkpoint-nimg",
        start,
        "--snapshot-nimg",
        every,
        "--total-kimg",
        total / 1000,
    ]
    base = ["--stable-kimg", 4, "--fade-kimg", 4, "--ema-decay", 0.997, "--ema-rampup", 0]
    trunk = args.out / BASE.replace(" ", "-")
    progan("train", "--data", args.data, "--preset", "demo", "--out", trunk, *base, *kept)
    curves = {}
    for name in args.only.split(","):
        run, flags = args.out / name.replace(" ", "-"), REMEDIES[name].split()
        if name != BASE:
            moment = ["--branch", trunk, "--from-kimg", start / 1000]
            progan("train", "--data", args.data, *moment, "--out", run, *kept, *flags)
        curves[name] = [point for point in measured(run, args) if point["nimg"] > start]
        write(args.out, curves, schedule)


def measured(run: Path, args: Any) -> list[dict[str, Any]]:
    """SWD and MS-SSIM of every snapshot: {"nimg", "swd": by level, "ms_ssim"}."""
    rows = list(read_lines(RunFolder(run).metrics))
    if len(rows) < 2 * len(list(RunFolder(run).snapshots.iterdir())):
        metrics = ["--metrics", "swd,ms_ssim", "--images", args.images]
        progan("evaluate", run, "--data", args.data, *metrics, "--all-snapshots")
        rows = list(read_lines(RunFolder(run).metrics))
    moments = sorted({row["nimg"] for row in rows})
    values = {(row["nimg"], row["metric"]): row["values"] for row in rows}
    return [{"nimg": at, "swd": values[at, "swd"], "ms_ssim": values[at, "ms_ssim"][""]} for at in moments]


def write(out: Path, curves: dict[str, list[dict[str, Any]]], schedule: Schedule) -> None:
    """All that is there so far."""
    from matplotlib.figure import Figure

    (out / "remedies.json").write_text(json.dumps(curves, indent=1) + "\n")
    moments = [point["nimg"] for point in next(iter(curves.values()))]
    rows = [(name, *(f"{point['swd']['average']:.1f}" for point in curve)) for name, curve in curves.items()]
    heads = ("SWD x1e3 after kimg", *(f"{at / 1000:g}" for at in moments))
    (out / "remedies.md").write_text(markdown_table(heads, rows, words=1))
    page = Figure(figsize=(11, 4.2), layout="constrained")
    for axis, title, value in zip(
        page.subplots(1, 2),
        (f"{value_title('swd')} of the moving average", "MS-SSIM (the less, the more varied)"),
        (lambda point: point["swd"]["average"], lambda point: point["ms_ssim"]),
        strict=True,
    ):
        for name, curve in curves.items():
            axis.plot(
                [p["nimg"] / 1000 for p in curve], [value(p) for p in curve], marker="o", markersize=3, label=name
            )
        for span in schedule.phases():
            if span.fading and span.stop_nimg > moments[0]:
                axis.axvspan(span.start_nimg / 1000, span.stop_nimg / 1000, color="black", alpha=0.06, linewidth=0)
        axis.set(title=title, xlabel="kimg")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    page.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    page.savefig(out / "remedies.png", dpi=100)


def progan(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "progan", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
