"""`progan evaluate`: whose images are measured, the table, metrics.jsonl."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from progan.config import TrainConfig
from progan.data.pictures.decode import load_image, read_size
from progan.data.pictures.tree import PictureFile, open_tree
from progan.data.source import BadImageError
from progan.data.store.manifest import MANIFEST
from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.fakes import fakes_of
from progan.evaluation.meter import Meter, Reals, Result, append, number
from progan.evaluation.neighbours import IMAGES, measure_neighbours
from progan.metrics.suite import Metric, value_title
from progan.networks import Generator
from progan.support.config_io import from_json
from progan.support.errors import ConfigError, DataError, RunError, printable
from progan.support.files import folder_for
from progan.support.hub import weights_file
from progan.support.json_reader import read_json
from progan.support.malloc import keep_freed_memory
from progan.support.plain_files import CONFIG_BYTES
from progan.support.processes import ALONE, Processes
from progan.support.rng import keyed_generator
from progan.support.run_files import RunFolder
from progan.support.workers import images_together, work
from progan.weights import load_network


@dataclass(frozen=True)
class Subject:
    """Whose images are measured. images(count): batches uint8 [n, C, R, R] of at most `count` images in all.

    images(count, own): those of them whose numbers lie in the ranges `own`.
    """

    name: str
    shape: tuple[int, int]
    """(channels, resolution)"""
    images: Callable[..., Iterator[np.ndarray]]
    nimg: int | None = None


def evaluate(
    subjects: Sequence[Subject],
    data: ImagePyramid,
    metrics: Sequence[Metric],
    *,
    mirrored: bool,
    seed: int,
    device: torch.device,
    out: Path,
    neighbours: bool = False,
    held_out: ImagePyramid | None = None,
    images: int | None = None,
    quiet: bool = False,
    processes: Processes = ALONE,
) -> Iterator[tuple[Subject, list[Result]]]:
    """Measure one subject after the other, and append each result to out/metrics.jsonl as a line of JSON.

    neighbours: also look for the nearest training images, into the subject's `neighbours_picture`. processes: each
    makes and describes its part of every subject's images; the first compares, looks for neighbours, writes, and alone
    gets results. Raises DataError when images and data set differ in channels, or the data set lacks their resolution.
    """
    first = processes.rank == 0
    processes.first(lambda: _check_all(subjects, data, held_out))
    if device.type == "cpu":
        keep_freed_memory()
    reals = Reals(data, subjects[0].shape[1], mirrored, seed)
    meter = Meter(metrics, reals, device, quiet or not first, processes=processes)
    with folder_for("--out", out) if first else nullcontext():
        for subject in subjects:
            results = []
            if metrics:
                count = max(metric.size for metric in metrics)
                results = meter.measure(processes.together(partial(subject.images, count, meter.own(count))))
            if not first:
                yield subject, results
                continue
            if neighbours:
                count = images or IMAGES
                where = neighbours_picture(out, subject)
                results.append(
                    measure_neighbours(
                        subject.images(count), meter.reals, held_out, where, images=count, device=device, quiet=quiet
                    )
                )
            append(out / "metrics.jsonl", results, subject.name, subject.nimg, meter)
            yield subject, results


def _check_all(subjects: Sequence[Subject], data: ImagePyramid, held_out: ImagePyramid | None) -> None:
    for subject in subjects:
        check_fits(subject, data)
        if subject.shape != subjects[0].shape:
            raise DataError(f"{subject.name}: has images of another size than {subjects[0].name}; evaluate it alone")
    if held_out is not None:
        check_fits(replace(subjects[0], name=str(held_out.path)), held_out)


def neighbours_picture(out: Path, subject: Subject) -> Path:
    """Where the picture of a subject's nearest training images goes."""
    return out / ("neighbours.png" if subject.nimg is None else f"neighbours-{subject.nimg:09d}.png")


def check_fits(subject: Subject, data: ImagePyramid) -> None:
    """Raise DataError unless the data set holds reals of the subject's size and channels."""
    channels, resolution = subject.shape
    if channels != data.channels:
        raise DataError(
            f"{subject.name}: has {channels} channels, {data.path} has {data.channels}; give the data set it belongs to"
        )
    if resolution not in data.resolutions:
        raise DataError(
            f"{subject.name}: images are {resolution}x{resolution}, {data.path} holds"
            f" {data.resolutions[0]} to {data.resolution} pixels; give a data set of that resolution"
        )


def subjects_of(
    source: Path, data: ImagePyramid, device: torch.device, *, all_snapshots: bool = False, seed: int = 0
) -> list[Subject]:
    """The generator of a run, a file or the hub, or every snapshot of a run; raises RunError if there is none."""
    if not all_snapshots:
        return [generator_subject(weights_file(source), data, device, seed)]
    found = sorted(RunFolder(source).snapshots.glob("generator-*.safetensors"))
    if not found:
        raise RunError(f"{source}: holds no snapshots; give the folder of a run for --all-snapshots")
    return [generator_subject(path, data, device, seed) for path in found]


def generator_subject(path: Path, data: ImagePyramid, device: torch.device, seed: int = 0) -> Subject:
    """The images of a weights file, at full size. Only its header is kept until they are asked for."""
    g, about = load_network(path, "generator")

    def images(count: int, own: Sequence[range] | None = None) -> Iterator[np.ndarray]:
        g: Generator = load_network(path, "generator")[0]
        stage = {"resolution": about.get("resolution"), "alpha": about.get("alpha", 1.0)}
        return fakes_of(g.requires_grad_(False).to(device), data, count, seed=seed, own=own, **stage)

    return Subject(str(path), (g.config.channels, g.config.resolution), images, about.get("nimg"))


def folder_subject(folder: Path, channels: int, seed: int = 0) -> Subject:
    """Images that any program wrote: a folder of pictures, all of one size, or a progan data set; in random order."""
    if (folder / MANIFEST).exists():
        pyramid = ImagePyramid.open(folder)
        reals = Reals(pyramid, pyramid.resolution, mirrored=False, seed=seed + 1)
        shape, there = (pyramid.channels, pyramid.resolution), len(pyramid)
        return Subject(
            str(folder), shape, lambda count, own=None: reals.stream(0, min(count, there), _up_to(there, own))
        )
    files = list(open_tree(folder).files())
    if not files:
        raise DataError(f"{folder}: holds no pictures; pass a folder of pictures")
    order = torch.randperm(len(files), generator=keyed_generator(seed, "measured files")).tolist()
    size = _side_of_all(folder, files)

    def images(count: int, own: Sequence[range] | None = None) -> Iterator[np.ndarray]:
        jobs = [files[i] for some in ([range(count)] if own is None else own) for i in order[some.start : some.stop]]
        if not jobs:
            return
        load = partial(_load, size=size, channels=channels)
        for image in work(load, jobs, total=len(jobs), together=images_together(size), quiet=True):
            yield image[None]

    return Subject(str(folder), (channels, size), images)


def _up_to(count: int, own: Sequence[range] | None) -> list[range] | None:
    return None if own is None else [range(min(some.start, count), min(some.stop, count)) for some in own]


def _side_of_all(folder: Path, files: list[PictureFile]) -> int:
    """The side of every picture, by their headers. Raises DataError naming the first that is not like the others."""
    found: tuple[int, int] | None = None
    for file in files:
        try:
            with file.open() as opened:
                size = read_size(opened)
        except BadImageError as error:
            raise DataError(f"{folder / file.name}: {error}; remove or mend it") from None
        found = found or size
        if size != (found[0], found[0]):
            others = "" if file is files[0] else f", the others are {found[0]}x{found[0]}"
            raise DataError(f"{folder / file.name}: is {size[0]}x{size[1]}{others}; give square pictures of one size")
    assert found is not None
    return found[0]


def _load(file: PictureFile, *, size: int, channels: int) -> np.ndarray:
    try:
        with file.open() as opened:
            return load_image(opened, resolution=size, channels=channels)
    except BadImageError as error:
        raise DataError(f"{file.path}: {error}; remove or mend it") from None


def training_mirrors(source: Path) -> bool | None:
    """Whether the run in this folder, or around this weights file, trains on mirrored images; None if none is known."""
    for folder in (source, source.parent, source.parent.parent):
        path = RunFolder(folder).config
        if path.exists():
            try:
                record = read_json(path, dict[str, Any], CONFIG_BYTES)
                return from_json(TrainConfig, record.get("config")).mirror
            except (OSError, ValueError, TypeError, ConfigError) as error:
                raise RunError(f"{path}: cannot be read ({printable(error)})") from None
    return None


def _counts(fakes: int, reals: int, floor: int = 0) -> str:
    return f"{fakes:,}" if fakes == reals else f"{fakes:,}, {reals:,} reals"


def results_table(rows: Sequence[tuple[Subject, Sequence[Result]]]) -> Table:
    """One row per value for one subject; one row per subject when there are several."""
    if len(rows) == 1:
        table = Table("metric", "images", box=None, pad_edge=False)
        for column in ("value", "±", "reals"):
            table.add_column(column, justify="right")
        for result in rows[0][1]:
            for level, value in result.values.items():
                table.add_row(
                    value_title(result.metric.name, level),
                    _counts(**result.images),
                    number(value),
                    number(result.spread.get(level)),
                    number(result.floor.get(level)),
                )
        return table
    table = Table("kimg", box=None, pad_edge=False)
    names = [(result, level) for result in rows[0][1] for level in result.values]
    for result, level in names:
        table.add_column(value_title(result.metric.name, level), justify="right")
    for subject, results in rows:
        kimg = subject.name if subject.nimg is None else f"{subject.nimg / 1000:g}"
        table.add_row(kimg, *(number(value) for result in results for value in result.values.values()))
    table.add_section()
    table.add_row("reals", *(number(result.floor.get(level)) for result, level in names))
    return table
