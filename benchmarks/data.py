"""How fast are data sets made and read, next to the least that the machine must do for it?

Making: pictures of 1024x1024, as JPEG and as PNG, become a data set by `create` with all cores and with one process,
and by a plain loop of Pillow that decodes each, halves it level by level and writes the same arrays without checksums,
all interleaved. Reading: batches of 16 random images at every level, once cached, next to copying as many bytes within
memory. Prints JSON. What is measured is imported where it is used: worker processes read this file, as they do
the console command's, which imports nothing.

    python benchmarks/data.py [--images 1024] [--resolution 1024] [--rounds 4] [--kinds jpg png]
"""

import argparse
import json
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

BATCH = 16
READ_BYTES = 2**30  # of each level's images, at most: what fits the page cache beside everything else


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", default=["jpg", "png"])
    args = parser.parse_args()
    from train_step import cpu_name

    from progan.support.workers import cores

    with tempfile.TemporaryDirectory() as folder:
        result = {
            "machine": f"{cpu_name()}, {cores()} cores",
            "create": [time_create(Path(folder), kind, args) for kind in args.kinds],
            "read": time_read(Path(folder), args.resolution),
        }
    print(json.dumps(result, indent=2))


def time_create(folder: Path, kind: str, args: argparse.Namespace) -> dict[str, object]:
    """Images a second of `create folder` with all cores and with one process, and of a plain Pillow loop."""
    from progan.data.create import create
    from progan.data.sources.folder import Folder
    from progan.support.workers import cores, work

    images, resolution = args.images, args.resolution
    src = folder / kind
    src.mkdir()
    jobs = [(i, resolution, src / f"{i:05}.{kind}") for i in range(images)]
    deque(work(save_photo, jobs, total=images, together=16), maxlen=0)
    ways: dict[str, Callable[[Path], object]] = {
        "all_cores": lambda out: create(Folder(src=src, out=out, resolution=resolution, workers=cores()), quiet=True),
        "one_process": lambda out: create(Folder(src=src, out=out, resolution=resolution, workers=1), quiet=True),
        "pillow_loop": lambda out: pillow_loop(src, out, resolution),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(args.rounds + 1):  # the first warms up
        # What the loop leaves to the disk reaches beyond its own time: the other two take turns at coming after it.
        compared = ["all_cores", "one_process"]
        for name in [*(compared if i % 2 else reversed(compared)), "pillow_loop"]:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                os.sync()  # what the one before wrote and deleted is not its successor's
                start = time.perf_counter()
                ways[name](Path(out) / "made")
                if i:
                    seconds[name].append(time.perf_counter() - start)
    speed_up = [one / both for one, both in zip(seconds["one_process"], seconds["all_cores"], strict=True)]
    over_pillow = [one / both for one, both in zip(seconds["pillow_loop"], seconds["all_cores"], strict=True)]
    return {
        "images": f"{images} of {resolution}x{resolution}, {kind}",
        "images_per_second": {name: round(images / median(s), 1) for name, s in seconds.items()},
        "all_cores_over_one_process": spread(speed_up),
        "all_cores_over_pillow_loop": spread(over_pillow),
    }


def pillow_loop(src: Path, out: Path, resolution: int) -> None:
    """The same arrays as anybody would first write it."""
    out.mkdir()
    paths = sorted(src.iterdir())
    sides = [resolution >> i for i in range(resolution.bit_length() - 2)]
    arrays = {
        r: np.lib.format.open_memmap(out / f"{r}.npy", "w+", dtype=np.uint8, shape=(len(paths), 3, r, r)) for r in sides
    }
    for i, path in enumerate(paths):
        picture = Image.open(path).convert("RGB")
        for r in sides:
            arrays[r][i] = np.asarray(picture).transpose(2, 0, 1)
            picture = picture.reduce(2)


def time_read(folder: Path, resolution: int) -> dict[str, object]:
    """Milliseconds of reading a batch, and the share that copying the same bytes takes, at every level."""
    from progan.data.store.pyramid import ImagePyramid, box_pyramid
    from progan.data.store.writer import PyramidWriter

    count = max(BATCH, READ_BYTES // (4 * resolution**2))
    rng = np.random.default_rng(0)
    with PyramidWriter(folder / "set", resolution=resolution, channels=3, source={"kind": "benchmark"}) as writer:
        levels = [box_pyramid(rng.integers(0, 256, (3, resolution, resolution), dtype=np.uint8)) for _ in range(8)]
        for i in range(count):
            writer.append(levels[i % 8])
    data = ImagePyramid.open(folder / "set")
    found: dict[str, object] = {"images": count, "batch": BATCH}
    for r in data.resolutions:
        data.read(np.arange(count), r)  # now cached
        source = np.ones(BATCH * 3 * r * r, np.uint8)
        # Two addresses that differ by whole pages would make the processor wait for itself.
        target = np.ones(len(source) + 2112, np.uint8)[2112:]
        read, copy = [], []
        for _ in range(200 if r <= 256 else 30):
            indices = rng.integers(0, count, BATCH)
            start = time.perf_counter()
            data.read(indices, r)
            middle = time.perf_counter()
            np.copyto(target, source)
            read.append(middle - start)
            copy.append(time.perf_counter() - middle)
        found[f"{r}x{r}"] = {
            "milliseconds": round(1e3 * median(read), 4),
            "gigabytes_per_second": round(source.nbytes / median(read) / 1e9, 2),
            "memcpy_over_read": round(median(copy) / median(read), 2),
        }
    return found


def save_photo(job: tuple[int, int, Path]) -> None:
    """For a worker process: seed, resolution and path of a picture."""
    seed, resolution, path = job
    photo_like(seed, resolution).save(path, quality=90)


def photo_like(seed: int, resolution: int) -> Image.Image:
    """Smooth shapes with some grain: about as many bytes as a photograph of this size has."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((resolution, resolution), Image.Resampling.BICUBIC), np.int16)
    grain = rng.normal(0, 6, (resolution, resolution, 1)).astype(np.int16)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def spread(ratios: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": round(median(ratios), 2), "min": round(min(ratios), 2), "max": round(max(ratios), 2)}


if __name__ == "__main__":
    main()
