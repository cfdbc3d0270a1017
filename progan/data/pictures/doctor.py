"""Look at everything before a data set is made of it, or after, and change nothing: `progan data doctor`."""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from progan.data.pictures.duplicates import near_groups
from progan.data.pictures.inspect import Look, look_at, look_at_image
from progan.data.pictures.tree import open_tree, shown
from progan.data.store.manifest import FORMAT, MANIFEST
from progan.data.store.pyramid import ImagePyramid
from progan.support.errors import DataError
from progan.support.files import write_json
from progan.support.json_reader import read_json
from progan.support.plain_files import LIST_BYTES
from progan.support.workers import work

SHOWN_NAMES = 3
SHOWN_ITEMS = 5
SAMPLED_PYRAMIDS = 1000
UNBALANCED = 10  # times as many images in the largest class as in the smallest


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    severity: "bad" files `create` cannot use as they are; "handled" ones it makes the right pixels of; "advice" ones
    it uses as they are, which may not be what is wanted. mend: what the user can do. fix: what --on-bad fix does, if
    that is something else than what --on-bad skip does.
    """

    title: str
    severity: Literal["bad", "handled", "advice"]
    mend: str
    fix: str = ""

    def policy(self) -> dict[str, str]:
        """What `create` does about it: one word or two for each value of --on-bad."""
        if self.severity == "bad":
            return {"fail": "stops", "skip": "left out", "fix": self.fix or "left out"}
        use = "handled" if self.severity == "handled" else "used"
        return {"fail": use, "skip": use, "fix": self.fix or use}


KINDS = {
    "unreadable": Kind("cannot be read", "bad", "delete it or get it again"),
    "damaged": Kind("truncated or damaged", "bad", "delete it or get it again"),
    "bomb": Kind("too many pixels", "bad", "shrink it first"),
    "unknown_mode": Kind("colours of unknown meaning", "bad", "convert it to RGB with 8 bits"),
    "not_square": Kind("not square", "bad", "--crop center or --pad", fix="cropped"),
    "tiny": Kind("smaller than 4x4", "bad", "delete it"),
    "small": Kind("smaller than most could be", "advice", "--resolution R --on-bad skip leaves it out"),
    "same_bytes": Kind("copy of another file", "advice", "--on-bad fix keeps the first", fix="first kept"),
    "same_pixels": Kind("same pixels as another", "advice", "delete one"),
    "near": Kind("looks like another", "advice", "look at both"),
    "blank": Kind("one colour all over", "advice", "delete it"),
    "profile": Kind("colours not in sRGB", "advice", "convert it to sRGB; profiles are left alone"),
    "odd_name": Kind("name that cannot be shown", "advice", "rename it"),
    "mode": Kind("palette, CMYK, 16 bits, ...", "handled", ""),
    "transparent": Kind("transparent: shows white", "handled", ""),
    "rotated": Kind("turned by its EXIF entry", "handled", ""),
    "animated": Kind("several frames: the first", "handled", ""),
    "extension": Kind("not the format of its name", "handled", ""),
    "checksum": Kind("content was changed", "bad", "copy or create the data set again"),
    "levels": Kind("levels not its 2x2 means", "advice", "create the data set again"),
    "unbalanced": Kind("classes of unequal size", "advice", "see labels in the report"),
}


@dataclass
class Report:
    """Everything that was found. facts: about the whole; files: one entry a picture, with its list of findings."""

    facts: dict[str, Any]
    files: list[dict[str, Any]]

    def by_kind(self) -> dict[str, list[str]]:
        """The names of the files of every kind that was found, in the order of `KINDS`."""
        found: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for entry in self.files:
            for kind in sorted({finding["kind"] for finding in entry["findings"]}):
                found[kind].append(entry["file"])
        return {kind: names for kind, names in found.items() if names}


def examine(src: Path, *, workers: int | None = None, quiet: bool = False) -> Report:
    """Look at every picture below `src` (a folder, a .zip or a .tar file) or at every image of a data set.

    Every file is decoded in full, in `workers` processes. The same pictures give the same report, whatever the number
    of processes. Raises DataError when `src` cannot be read at all.
    """
    return _examine_data_set(src, workers, quiet) if _is_data_set(src) else _examine_pictures(src, workers, quiet)


def write_report(report: Report, path: Path) -> None:
    """Write all that was found as JSON, whole or not at all; the same report gives the same bytes."""
    kinds = {
        kind: {
            "title": KINDS[kind].title,
            "severity": KINDS[kind].severity,
            "files": len(names),
            "create": KINDS[kind].policy() if report.facts["kind"] == "pictures" else None,
            "mend": KINDS[kind].mend,
        }
        for kind, names in report.by_kind().items()
    }
    write_json(
        path, {"format": "progan data report", "version": 1, **report.facts, "kinds": kinds, "files": report.files}
    )


def report_table(report: Report) -> RenderableType:
    """The report for people: what was found, how often, what `create` does about it, what helps."""
    parts: list[RenderableType] = [_facts_table(report.facts)]
    if "levels" in report.facts:
        levels = Table("resolution", "usable", "lost", "usable with --crop center", "lost")
        total = report.facts["pictures"]
        for level in report.facts["levels"]:
            square, cropped = level["square"], level["cropped"]
            counts = (square, total - square, cropped, total - cropped)
            levels.add_row(str(level["resolution"]), *(f"{count:,}" for count in counts))
        parts.append(levels)
    pictures = report.facts["kind"] == "pictures"
    found = report.by_kind()
    if found:
        rows = Table("found", "files", *(["--on-bad fail | skip | fix"] if pictures else []), "what helps")
        rows.add_column("such as", overflow="ellipsis", no_wrap=True)
        for kind, names in found.items():
            policy = KINDS[kind].policy()
            does = " | ".join(policy.values() if len(set(policy.values())) > 1 else [policy["fail"]])
            more = ["..."] if len(names) > SHOWN_NAMES else []
            such = "\n".join([*names[:SHOWN_NAMES], *more])
            cells = [does] if pictures else []
            rows.add_row(KINDS[kind].title, f"{len(names):,}", *cells, KINDS[kind].mend, such)
        parts.append(rows)
    bad = sum(any(KINDS[found["kind"]].severity == "bad" for found in entry["findings"]) for entry in report.files)
    if pictures:
        verdict = f"{bad:,} of {len(report.files):,} cannot be used as they are" if bad else "all can be used"
    else:
        verdict = "the data set is damaged" if bad else "every file matches the manifest"
    parts.append(verdict)
    return Group(*parts)


def _examine_pictures(src: Path, workers: int | None, quiet: bool) -> Report:
    tree = open_tree(src)
    total = sum(1 for _ in tree.files())
    if not total:
        raise DataError(
            f"{src}: holds no pictures ({tree.other} other and {tree.hidden} hidden files were ignored); "
            "pass a folder of pictures"
        )
    with closing(work(look_at, tree.files(), total=total, together=4, workers=workers, quiet=quiet)) as results:
        looks = list(results)
    facts = {"kind": "pictures", "name": shown(src.resolve().name), "pictures": total}
    facts |= {"ignored_hidden": tree.hidden, "ignored_other": tree.other} | _size_facts(looks)
    _find_copies(looks)
    return _report(facts, looks)


def _examine_data_set(src: Path, workers: int | None, quiet: bool) -> Report:
    data = ImagePyramid.open(src)
    whole = Look({"file": MANIFEST})
    try:
        data.verify()
    except DataError as error:
        whole.findings.append(("checksum", str(error)))
    facts: dict[str, Any] = {"kind": "data set", "name": shown(src.resolve().name), "images": data.count}
    facts |= {"shape": [data.channels, data.resolution, data.resolution], "hash": data.hash}
    if data.label_names is not None:
        counts = data.label_counts()
        facts["labels"] = dict(zip(data.label_names, counts, strict=True))
        if max(counts) > UNBALANCED * min(counts):
            whole.findings.append(("unbalanced", f"{min(counts):,} to {max(counts):,} images a class"))
    look = partial(look_at_image, path=src, step=-(-data.count // SAMPLED_PYRAMIDS))
    jobs = range(data.count)
    with closing(work(look, jobs, total=data.count, together=4, workers=workers, quiet=quiet)) as results:
        looks = list(results)
    _find_copies(looks)
    return _report(facts, [whole, *looks])


def _size_facts(looks: list[Look]) -> dict[str, Any]:
    """The sizes, and what they mean for the resolution of a data set; marks the pictures that are in the minority."""
    sizes = [(look.entry["width"], look.entry["height"], look) for look in looks if look.entry["width"] is not None]
    histogram = Counter((width, height) for width, height, _ in sizes)
    ordered = sorted(histogram.items(), key=lambda item: (-item[1], item[0]))
    square = [width for width, height, _ in sizes if width == height >= 4]
    sides = sorted(min(width, height) for width, height, _ in sizes if min(width, height) >= 4)
    powers = [1 << power for power in range(2, max(sides, default=0).bit_length())]
    most = max((r for r in powers if 2 * sum(side >= r for side in sides) >= len(sides)), default=4)
    for width, height, look in sizes:
        if 4 <= min(width, height) < most:
            look.findings.append(("small", f"{width}x{height}, but most fill {most}x{most}"))
    return {
        "sizes": {f"{width}x{height}": count for (width, height), count in ordered},
        "resolution": 1 << (min(square).bit_length() - 1) if square else None,
        "resolution_most_fill": most if sides else None,
        "levels": [
            {"resolution": r, "square": sum(side >= r for side in square), "cropped": sum(side >= r for side in sides)}
            for r in powers
        ],
    }


def _find_copies(looks: list[Look]) -> None:
    """Copies and look-alikes name the first of their kind, in the order of the pictures."""
    sound = [look for look in looks if look.pixels]
    files: dict[bytes, str] = {}
    pixels: dict[bytes, str] = {}
    unlike: list[Look] = []
    for look in sound:
        name = look.entry["file"]
        same_file = files.setdefault(look.digest, name) if look.digest else name
        same_pixels = pixels.setdefault(look.pixels, name)
        if same_file != name:
            look.findings.append(("same_bytes", same_file))
        elif same_pixels != name:
            look.findings.append(("same_pixels", same_pixels))
        elif not look.blank:
            unlike.append(look)
    if unlike:
        shapes = np.array([look.shapes for look in unlike], np.uint64)
        thumbs = np.frombuffer(b"".join(look.thumb for look in unlike), np.uint8).reshape(len(unlike), -1)
        for look, first in zip(unlike, near_groups(shapes, thumbs).tolist(), strict=True):
            if unlike[first] is not look:
                look.findings.append(("near", unlike[first].entry["file"]))


def _report(facts: dict[str, Any], looks: list[Look]) -> Report:
    files = []
    for look in looks:
        findings = [{"kind": kind, "detail": shown(detail)} for kind, detail in sorted(look.findings)]
        files.append(look.entry | {"findings": findings})
    return Report(facts, files)


def _is_data_set(src: Path) -> bool:
    """Also one that was never finished, so that its error says so; StyleGAN's dataset.json is none of ours."""
    try:
        return read_json(src / MANIFEST, dict[str, Any], LIST_BYTES).get("format") == FORMAT
    except (OSError, ValueError):
        return src.is_dir() and any(src.glob("images-*x*.npy"))


def _facts_table(facts: dict[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for key, value in facts.items():
        if key == "levels":
            continue
        if isinstance(value, dict):
            some = [f"{name}: {count:,}" for name, count in list(value.items())[:SHOWN_ITEMS]]
            more = [f"and {len(value) - SHOWN_ITEMS} more"] if len(value) > SHOWN_ITEMS else []
            value = ", ".join(some + more) or "none"
        table.add_row(key.replace("_", " "), f"{value:,}" if type(value) is int else str(value))
    return table
