"""How long do SWD and MS-SSIM take by the paper's protocol, and how near is that to what the machine can do?

SWD of 16,384 + 16,384 images, MS-SSIM of 10,000 pairs, each in a process of its own, so that its peak memory is its
own; the images come from a file, as those of a data set do. Then, interleaved in one run, what SWD's two large parts
cost: projecting (its share of the machine's fastest matrix product is given) and counting, against sorting, with the
difference between the counted and the sorted distance. Prints JSON.

    python benchmarks/metrics.py [--resolution 128] [--images 16384] [--pairs 10000]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from train_step import cpu_name

from progan.metrics.histogram import BINS, histogram_distance, projection_histograms
from progan.metrics.protocol import collect
from progan.metrics.sliced_wasserstein import SwdCollector, SwdProtocol, random_directions, swd
from progan.metrics.structural_similarity import MsSsimCollector, MsSsimProtocol
from progan.support.malloc import keep_freed_memory

BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--images", type=int, default=16_384)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--part", nargs=2, metavar=("NAME", "FOLDER"))
    args = parser.parse_args()
    if args.part:
        name, folder = args.part
        keep_freed_memory()  # as `progan evaluate` does
        part = {"swd": time_swd, "ms_ssim": time_ms_ssim, "parts": compare_parts}[name](Path(folder), args)
        part["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
        print(json.dumps(part))
        return
    result: dict[str, object] = {
        "machine": f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "resolution": args.resolution,
    }
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.resolution, max(args.images, 2 * args.pairs))
        for name in ("swd", "ms_ssim", "parts"):
            command = [sys.executable, __file__, *(f"--{key}={getattr(args, key)}" for key in ("resolution", "images"))]
            command += [f"--pairs={args.pairs}", "--part", name, folder]
            result[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(json.dumps(result, indent=2))


def write_images(folder: Path, resolution: int, count: int) -> None:
    """Two sets of smooth random images with some noise, as raw bytes."""
    for name, detail in (("reals", 6.0), ("fakes", 8.0)):
        rng = np.random.default_rng(len(name))
        with (folder / name).open("wb") as file:
            for _ in range(0, count, BATCH):
                coarse = torch.from_numpy(rng.uniform(0, 255, (BATCH, 3, 8, 8)).astype(np.float32))
                images = torch.nn.functional.interpolate(coarse, size=(resolution, resolution), mode="bicubic")
                images += detail * torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(1))
                file.write(images.clamp(0, 255).to(torch.uint8).numpy().tobytes())


def stream(file: Path, resolution: int) -> Iterator[np.ndarray]:
    """The images of a file, batch by batch."""
    with file.open("rb") as handle:
        while data := handle.read(BATCH * 3 * resolution**2):
            yield np.frombuffer(data, np.uint8).reshape(-1, 3, resolution, resolution)


def time_swd(folder: Path, args: argparse.Namespace) -> dict[str, object]:
    """Seconds of the whole, and of reading alone."""
    start = time.perf_counter()
    values = swd(*(stream(folder / name, args.resolution) for name in ("reals", "fakes")), images=args.images)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    for _ in stream(folder / "reals", args.resolution):
        pass
    return {
        "images": [args.images, args.images],
        "seconds": round(seconds, 1),
        "of_it_reading": round(2 * (time.perf_counter() - start), 1),
        "values": {level: round(value, 4) for level, value in values.items()},
    }


def time_ms_ssim(folder: Path, args: argparse.Namespace) -> dict[str, object]:
    """Seconds of the whole."""
    start = time.perf_counter()
    pairs = collect(stream(folder / "reals", args.resolution), MsSsimCollector(MsSsimProtocol(args.pairs)))["pairs"]
    seconds = time.perf_counter() - start
    return {"pairs": len(pairs), "seconds": round(seconds, 1), "mean": round(float(pairs.mean()), 4)}


def compare_parts(folder: Path, args: argparse.Namespace) -> dict[str, object]:
    """Projecting, counting and sorting the finest level's descriptors on some directions, three times in turn."""
    protocol = SwdProtocol(images=args.images)
    sets = []
    for name in ("reals", "fakes"):
        collector = SwdCollector(protocol, name)
        for batch in stream(folder / name, args.resolution):
            collector.add(batch)
        collector._levels = {args.resolution: collector._levels[args.resolution]}
        sets.append([collector._patches(args.resolution, i) / 10 for i in range(len(collector._blocks))])
    directions = random_directions(protocol, 147)[:128]
    rows = sum(map(len, sets[0]))
    square = torch.randn(2048, 2048)
    functions = [([block.clone for block in x], [len(block) for block in x]) for x in sets]
    times: dict[str, list[float]] = {"product": [], "project": [], "count": [], "sort": []}

    def timed(name: str, function: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = function()
        times[name].append(time.perf_counter() - start)
        return result

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in range(3):
            timed("product", lambda: [square @ square for _ in range(10)])
            timed("project", lambda: [directions @ block.T for block in sets[0]])
            histograms = timed("count", lambda: [projection_histograms(*x, directions) for x in functions])
            start = time.perf_counter()
            ordered = []
            for blocks in sets:
                projections = torch.cat([directions @ block.T for block in blocks], 1).numpy()
                ordered.append(list(pool.map(np.sort, projections)))
            times["sort"].append(time.perf_counter() - start)
    exact = np.array([np.abs(a.astype(np.float64) - b).mean() for a, b in zip(*ordered, strict=True)])
    counted = histogram_distance(*histograms)
    best = {name: min(values) for name, values in times.items()}
    flops = 2 * rows * 147 * len(directions)
    product = 10 * 2 * 2048**3 / best["product"]
    return {
        "descriptors": rows,
        "directions": len(directions),
        "bins": BINS,
        "fastest_product_gflops": round(product / 1e9),
        "projecting_share_of_it": round(flops / best["project"] / product, 2),
        "floor_of_projecting_all_levels_seconds": round(
            2 * 4 * flops / product * protocol.directions / len(directions), 1
        ),
        "project_and_count_seconds": [round(x, 2) for x in times["count"]],
        "project_and_sort_seconds": [round(x, 2) for x in times["sort"]],
        "sort_over_count": round(best["sort"] / best["count"], 2),
        "counted_over_sorted_minus_1": float(counted.mean() / exact.mean() - 1),
    }


if __name__ == "__main__":
    main()
