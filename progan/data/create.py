"""Create data sets: an ordered stream of jobs, a pool of processes, one writer."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from progan.data.manifest import pyramid_resolutions
from progan.data.pyramid import ImagePyramid, PyramidWriter
from progan.data.sources import faces
from progan.data.sources.folder import BadImage, Crop, image_levels, survey_folder
from progan.errors import DataError

SHOWN_BAD_IMAGES = 10
SECONDS_BETWEEN_LINES = 10.0

Job = TypeVar("Job")
Result = TypeVar("Result")


def create_faces(
    out: str | os.PathLike[str],
    *,
    count: int,
    resolution: int,
    first_seed: int = 0,
    workers: int | None = None,
    command: str = "",
    quiet: bool = False,
) -> ImagePyramid:
    """Compose the faces of seeds first_seed .. first_seed + count - 1 into a data set at `out`.

    A seed's bytes depend on the seed and the resolution only, so data sets whose seeds overlap share those images.
    `workers` None takes every core; `command` is noted in the manifest; `quiet` leaves out the progress.
    Raises DataError for a resolution that is no power of two of at least 4, a count below 1, a negative seed,
    missing packages, an `out` that holds files and a full disk; nothing is left at `out` then.
    """
    pyramid_resolutions(resolution)
    if count < 1:
        raise DataError(f"{count} images make no data set; ask for at least 1")
    if first_seed < 0:
        raise DataError(f"seed {first_seed} is negative; seeds start at 0")
    faces.check_installed()
    render = partial(faces.face_levels, resolution=resolution)
    seeds = range(first_seed, first_seed + count)
    with (
        PyramidWriter(
            out,
            resolution=resolution,
            channels=3,
            source=faces.face_source(first_seed, count),
            attribution=faces.face_attribution(),
            command=command,
        ) as writer,
        closing(work(render, seeds, total=count, resolution=resolution, workers=workers, quiet=quiet)) as results,
    ):
        for levels in results:
            writer.append(levels)
    return ImagePyramid.open(out)


def create_folder(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resolution: int | None = None,
    crop: Crop = "none",
    pad: bool = False,
    labels: Literal["none", "folders"] = "none",
    channels: int = 3,
    on_bad: Literal["fail", "skip"] = "fail",
    workers: int | None = None,
    command: str = "",
    quiet: bool = False,
) -> ImagePyramid:
    """Turn every picture under `src`, in the order of their paths, into a data set at `out`.

    See `progan.data.sources.folder` for how pictures are found, decoded and resized. `channels` is 3 (RGB) or 1
    (gray). With `on_bad` "fail" any picture that cannot be used stops the creation with a list of all of them (of
    those known by their headers, before the first is decoded); "skip" leaves them out and names them in the manifest.
    Raises DataError for what `survey_folder` and `PyramidWriter` refuse, and when no picture is left.
    """
    src = Path(src)
    if channels not in (1, 3):
        raise DataError(f"{channels} channels are not supported; choose 3 (RGB) or 1 (gray)")
    survey = survey_folder(src, resolution=resolution, crop=crop, pad=pad, labels=labels)
    found = len(survey.files) + len(survey.bad)
    console = Console(stderr=True, quiet=quiet)
    if resolution is None and survey.files:
        console.print(f"resolution {survey.resolution}, set by the smallest picture ({survey.smallest})", markup=False)
    bad = list(survey.bad)
    if bad and (on_bad == "fail" or not survey.files):
        raise _bad_images(src, bad, found)
    source: dict[str, Any] = {
        "kind": "folder",
        "folder": src.resolve().name,
        "crop": crop,
        "pad": pad,
        "found": found,
        "ignored_hidden": survey.ignored_hidden,
        "ignored_other": survey.ignored_other,
    }
    read = partial(image_levels, resolution=survey.resolution, channels=channels, crop=crop, pad=pad)
    with (
        PyramidWriter(
            out,
            resolution=survey.resolution,
            channels=channels,
            label_names=survey.label_names,
            source=source,
            command=command,
        ) as writer,
        closing(
            work(
                read, survey.files, total=len(survey.files), resolution=survey.resolution, workers=workers, quiet=quiet
            )
        ) as results,
    ):
        for file, result in zip(survey.files, results, strict=True):
            if isinstance(result, BadImage):
                bad.append(result)
            elif not bad or on_bad == "skip":
                writer.append(result, file.label)
        if bad and (on_bad == "fail" or writer.count == 0):
            raise _bad_images(src, bad, found)
        bad.sort(key=lambda image: image.name)
        source["left_out"] = [{"file": image.name, "reason": image.reason} for image in bad]
    if bad:
        text = f"warning: left out {len(bad)} of {found} pictures:\n{_listing(bad)}"
        console.print(text, markup=False, highlight=False)
    return ImagePyramid.open(out)


def describe(pyramid: ImagePyramid) -> RenderableType:
    """A data set for people: count, shape, source, licence and hash; levels with their sizes on disk; labels."""
    facts = Table.grid(padding=(0, 2))
    size, manifest = pyramid.resolution, pyramid.manifest
    rows = {
        "data set": str(pyramid.path),
        "images": f"{pyramid.count:,}",
        "shape": f"{pyramid.channels} x {size} x {size}, uint8",
        "hash": pyramid.hash,
    }
    rows |= {key: _plain(value) for key, value in manifest["source"].items()}
    rows |= {key: _plain(value) for key, value in (manifest.get("attribution") or {}).items()}
    rows |= {"command": manifest["command"]} if manifest.get("command") else {}
    for key, value in rows.items():
        facts.add_row(key.replace("_", " "), Text(value))
    files = Table("file", "shape", "size")
    for entry in manifest["files"]:
        files.add_row(entry["name"], " x ".join(map(str, entry["shape"])), f"{entry['bytes'] / 2**20:,.1f} MiB")
    parts: list[RenderableType] = [facts, files]
    if pyramid.label_names is not None:
        counts = Table("label", "name", "images")
        for index, (name, count) in enumerate(zip(pyramid.label_names, pyramid.label_counts(), strict=True)):
            counts.add_row(str(index), Text(name), f"{count:,}")
        parts.append(counts)
    return Group(*parts)


def work(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    total: int,
    resolution: int,
    workers: int | None = None,
    quiet: bool = False,
) -> Generator[Result, None, None]:
    """The results of function(job), in the order of the jobs, made by several processes, with progress on stderr.

    `function` and the jobs must be picklable when workers > 1. Only a few jobs are in flight at a time, so memory
    does not grow with `total`; images of `resolution` decide how many travel together. Close the iterator to stop
    early. Raises what `function` raises, and DataError when a worker process dies or workers < 1.
    """
    if workers is not None and workers < 1:
        raise DataError(f"{workers} worker processes cannot work; ask for at least 1")
    if workers is None:
        workers = min(_cores(), max(1, total // 32))  # starting a process costs as much as a few dozen images
    chunk = max(1, min(16, 2**18 // resolution**2, total // workers))
    results = _here(function, jobs) if workers == 1 else _pooled(function, jobs, workers, chunk)
    with closing(results):
        yield from results if quiet else _with_progress(results, total)


def _here(function: Callable[[Job], Result], jobs: Iterable[Job]) -> Generator[Result, None, None]:
    for job in jobs:
        yield function(job)


def _pooled(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, chunk: int
) -> Generator[Result, None, None]:
    # Spawned, not forked: the caller may hold CUDA, OpenMP or progress-bar threads that do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        stream = iter(jobs)
        flying: deque[Future[list[Result]]] = deque()
        while True:
            while len(flying) < 2 * workers and (some := list(islice(stream, chunk))):
                flying.append(pool.submit(_work_off, function, some))
            if not flying:
                return
            yield from flying.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died; pass --workers 1 if memory was short, and in a script start from "
            '`if __name__ == "__main__":`'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _work_off(function: Callable[[Job], Result], jobs: list[Job]) -> list[Result]:
    return [function(job) for job in jobs]


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its pool, whose processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with_progress(results: Iterable[Result], total: int) -> Iterator[Result]:
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    start = last_line = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, rate="")
        for done, result in enumerate(results, 1):
            yield result
            now = time.monotonic()
            rate = done / max(now - start, 1e-9)
            progress.update(task, completed=done, rate=f"{rate:,.0f} img/s")
            if not console.is_terminal and (done == total or now - last_line > SECONDS_BETWEEN_LINES):
                last_line = now
                left = (total - done) / rate
                line = f"{done:,} of {total:,} images, {rate:,.0f} img/s, {left:,.0f} s left"
                print(line, file=sys.stderr, flush=True)


def _bad_images(src: Path, bad: list[BadImage], found: int) -> DataError:
    what = f"{len(bad)} of {found} pictures cannot be used"
    advice = "mend them" if len(bad) == found else "mend them, or pass --on-bad skip to leave them out"
    return DataError(f"{src}: {what}, the first being {bad[0].name}: {bad[0].reason}; {advice}\n{_listing(bad)}")


def _listing(bad: list[BadImage]) -> str:
    lines = [f"  {image.name}: {image.reason}" for image in bad[:SHOWN_BAD_IMAGES]]
    if len(bad) > SHOWN_BAD_IMAGES:
        lines.append(f"  and {len(bad) - SHOWN_BAD_IMAGES} more")
    return "\n".join(lines)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value)} (listed in dataset.json)" if value else "0"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
