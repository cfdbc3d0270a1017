"""Create data sets: a source's images, made by all cores, written by one writer."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from functools import partial
from itertools import islice
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from progan.data.source import BadImage, FileSource, ImageStream, Source
from progan.data.store.partial import held, kept_place
from progan.data.store.pyramid import ImagePyramid
from progan.data.store.row_files import make_image
from progan.data.store.writer import PyramidWriter
from progan.support.errors import DataError
from progan.support.malloc import keep_freed_memory
from progan.support.terminal import Terminal
from progan.support.workers import work, worker_count

SHOWN_BAD_IMAGES = 10
SHOWN_LABELS = 40


def create(source: Source, *, command: str = "", quiet: bool = False) -> ImagePyramid:
    """Make the data set that `source` describes, at `source.out`.

    With the source's `on_bad` "fail", any image that cannot be used stops the creation with a list of all of them (of
    those known beforehand, before the first is decoded); otherwise they are left out and named in the manifest.
    `command` is noted in the manifest; `quiet` leaves out progress and warnings.
    Raises DataError for what the source and `PyramidWriter` refuse, and when no image is left; nothing is left at
    `out` then. What was made of a resumable source is kept beside `out`, and the same call goes on.
    """
    console = Terminal(stderr=True, quiet=quiet)
    fails = getattr(source, "on_bad", "fail") == "fail"
    keep_freed_memory()
    if (kept := kept_place(source.out)).exists():
        with held(kept):  # before anything is looked at, which may take hours
            pass
    stream = source.open()
    for note in stream.notes:
        console.say(note)
    if stream.bad and (fails or not stream.total):
        raise _bad_images(source, stream, stream.bad)
    with PyramidWriter(
        source.out,
        resolution=stream.resolution,
        channels=stream.channels,
        label_names=stream.label_names,
        source=stream.facts,
        attribution=stream.attribution,
        command=command,
        identity=_identity(source, stream) if stream.resumable else None,
    ) as writer:
        if writer.records:
            console.say(f"goes on after {len(writer.records):,} of {stream.total:,} images")
        try:
            bad, counts = _write(stream, writer, fails, getattr(source, "workers", None), quiet)
        except BaseException:
            if stream.resumable:
                console.say(f"what was made is kept in {writer.folder}; the same command goes on")
            raise
        bad = sorted([*stream.bad, *bad], key=lambda image: image.name)
        if bad and (fails or writer.count == 0):
            writer.keep = False
            raise _bad_images(source, stream, bad)
        if counts:
            stream.facts["counts"] = counts
        if isinstance(source, FileSource):
            stream.facts["found"] = stream.found
            stream.facts["left_out"] = [{"file": image.name, "reason": image.reason} for image in bad]
    if bad:
        console.say("\n".join([f"warning: left out {len(bad)} of {stream.found} pictures:", *_listing(bad)]))
    for what, number in counts.items():
        console.say(f"{what.replace('_', ' ')}: {number:,} of {writer.count:,} images")
    return ImagePyramid.open(source.out)


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
        facts.add_row(key.replace("_", " "), value)
    files = Table("file", "shape", "size")
    for entry in manifest["files"]:
        files.add_row(entry["name"], " x ".join(map(str, entry["shape"])), f"{entry['bytes'] / 2**20:,.1f} MiB")
    parts: list[RenderableType] = [facts, files]
    if pyramid.label_names is not None:
        counts, images = Table("label", "name", "images"), pyramid.label_counts()
        for index, name in enumerate(pyramid.label_names[:SHOWN_LABELS]):
            counts.add_row(str(index), name, f"{images[index]:,}")
        parts.append(counts)
        if len(images) > SHOWN_LABELS:
            parts.append(f"and {len(images) - SHOWN_LABELS:,} more; {min(images):,} to {max(images):,} images each")
    return Group(*parts)


def _write(
    stream: ImageStream, writer: PyramidWriter, fails: bool, workers: int | None, quiet: bool
) -> tuple[list[BadImage], dict[str, int]]:
    """Make and write every image that is not there yet; returns the bad ones and what was counted."""
    bad = [BadImage(*record["bad"]) for record in writer.records if record["bad"]]
    counts: Counter[str] = Counter()
    for record in writer.records:
        counts.update(record["counts"])
    places: deque[tuple[int, int | None]] = deque()  # row and label of what is being made
    done, rows_before = len(writer.records), writer.count
    processes = 1 if stream.cheap else worker_count(workers, stream.total - done)

    def jobs() -> Iterator[tuple[int, Any]]:
        for i, (job, label) in enumerate(islice(stream.jobs, done, None)):
            places.append((rows_before + i, label))
            yield rows_before + i, job

    # Several processes write their images themselves: sending them here would cost nearly as much as making them.
    results = work(
        partial(make_image, levels=stream.levels, rows=None if processes == 1 else writer.rows()),
        jobs(),
        total=stream.total - done,
        # Only checksums travel, so many may go together; what takes so long that it is kept when interrupted goes one
        # by one, so that little is lost.
        together=1 if stream.resumable else max(1, min(16, 2**22 // stream.resolution**2)),
        workers=processes,
        quiet=quiet,
    )
    with closing(results):
        for made, digests in results:
            row, label = places.popleft()
            if isinstance(made, BadImage):
                bad.append(made)
            elif not (bad and fails):
                counts.update(made.counts)
                writer.adopt(row, digests, label) if digests else writer.append(made.levels, label)
            if stream.resumable:
                reason = [made.name, made.reason] if isinstance(made, BadImage) else None
                writer.note({"bad": reason, "counts": {} if isinstance(made, BadImage) else made.counts})
    return bad, dict(counts)


def _identity(source: Source, stream: ImageStream) -> dict[str, Any]:
    """What must be the same for a creation to go on."""
    options = {field.name: str(getattr(source, field.name)) for field in fields(source)}
    return {**stream.facts, **options, "out": "", "workers": "", "images": stream.total}


def _bad_images(source: Source, stream: ImageStream, bad: list[BadImage]) -> DataError:
    where = getattr(source, "src", source.out)
    what = f"{len(bad)} of {stream.found} pictures cannot be used"
    advice = "mend them" if len(bad) == stream.found else "mend them, or pass --on-bad skip to leave them out"
    return DataError(f"{where}: {what}, the first being {bad[0].name}: {bad[0].reason}; {advice}", *_listing(bad))


def _listing(bad: list[BadImage]) -> list[str]:
    lines = [f"  {image.name}: {image.reason}" for image in bad[:SHOWN_BAD_IMAGES]]
    if len(bad) > SHOWN_BAD_IMAGES:
        lines.append(f"  and {len(bad) - SHOWN_BAD_IMAGES} more")
    return lines


def _plain(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value)} (listed in dataset.json)" if value else "0"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
