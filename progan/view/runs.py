"""What the folder of a run shows at this moment, as plain data; read while training writes, and never written."""

import hashlib
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from progan.config import TrainConfig
from progan.data.store.manifest import MANIFEST
from progan.metrics.suite import value_title
from progan.presets import PRESETS
from progan.run.dry_run import seconds_left
from progan.run.folder import read_config
from progan.run.metrics_log import read_metrics
from progan.run.state import FREE_FIELDS
from progan.schedule import Schedule
from progan.support.config_io import flat_fields
from progan.support.errors import RunError
from progan.support.files import is_locked
from progan.support.json_reader import parse_json
from progan.support.plain_files import open_plain
from progan.support.run_files import RunFolder, read_lines

DEEPEST = 5  # folders below the one that is viewed
TAIL_BYTES = 4096  # of a file of lines, which hold its last whole one
MOST_POINTS = 2000  # of a curve; a screen has no more columns
QUIET_S = 120  # without a line, a run is taken for stopped where locks cannot be seen
_SAME = ("metric", "protocol", "data", "resolution")  # that two measurements share, if their values compare
_ABOUT = ("nimg", "resolution", "alpha", "batch")  # fields of a line of stats.jsonl that are no terms of the loss


class _Stats(TypedDict):
    nimg: int


class _Timing(TypedDict):
    nimg: int
    seconds: float
    img_per_s: NotRequired[float]


@dataclass(frozen=True)
class Found:
    """What lies below a folder, by what kind it is: paths of runs, data sets and studies, in the order of names."""

    runs: list[Path]
    data: list[Path]
    studies: list[Path]


def find(root: Path) -> Found:
    """Everything that the viewer can show in a folder, or the folder itself; links that lead out are not followed."""
    found = Found([], [], [])
    inside = root.resolve()

    def walk(folder: Path, depth: int) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        names = {entry.name for entry in entries}
        if "study.json" in names:
            found.studies.append(folder)
        if MANIFEST in names:
            found.data.append(folder)
        elif "config.json" in names:
            found.runs.append(folder)
        elif depth < DEEPEST:
            for entry in entries:
                if entry.is_dir() and not entry.name.startswith(".") and is_inside(Path(entry.path), inside):
                    walk(Path(entry.path), depth + 1)

    walk(root, 0)
    return found


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, lies in `root`, which is resolved."""
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # links that lead in a circle
        return False


def run_id(path: Path) -> str:
    """A name for addresses: 12 letters that stand for the path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def summary(path: Path) -> dict[str, Any]:
    """A run in a line: how far it is, how it fares, its newest picture.

    {"id", "name", "state", "problem", "nimg", "total", "resolution", "alpha", "full", "img_per_s", "seconds", "left",
    "picture", "changed"}: state is training, stopped, done, diverged or unreadable; problem says more in a sentence;
    picture: nimg of the newest fakes, None without; left: seconds to the end while it trains; changed: of the newest
    line, as time of the clock.
    """
    folder = RunFolder(path)
    facts: dict[str, Any] = {"id": run_id(path), "name": path.name, "problem": "", "nimg": 0, "seconds": 0.0}
    facts |= {"total": 0, "resolution": 0, "alpha": 1.0, "full": 0, "img_per_s": None, "left": None, "changed": None}
    facts["picture"] = max(pictures(path), default=None)
    try:
        config, _ = read_config(folder, "the viewer shows what it can")
    except RunError as error:
        return facts | {"state": "unreadable", "problem": str(error)}
    last = _last_line(folder.timing)
    nimg, total = last.get("nimg", 0), config.schedule.total_nimg
    phase = Schedule(config.schedule, config.g.resolution).at(max(0, min(nimg, total - 1)))
    speed = last.get("img_per_s")
    facts |= {"nimg": nimg, "total": total, "resolution": phase.resolution, "alpha": phase.alpha}
    facts |= {"full": config.g.resolution, "seconds": last.get("seconds", 0.0), "img_per_s": speed}
    facts["changed"] = _changed(folder.timing)
    facts["state"], facts["problem"] = _state(folder, nimg, total)
    if facts["state"] == "training" and speed:
        facts["left"] = seconds_left(config, nimg, speed)
    return facts


def details(path: Path) -> dict[str, Any]:
    """All of a run: its summary, and "phases", "pictures", "snapshots", "config", "preset", "differs", "data",
    "losses", "speed", "metrics", "machines".

    phases: {"start", "stop", "resolution", "fading"} each; pictures and snapshots: their nimg; differs: [field, the
    preset's value, the run's] of the preset that is nearest; losses: {"nimg": [...], "terms": {name: [...]}}; speed:
    {"nimg", "seconds", "img_per_s"}; metrics: a list of `curves`; machines: what it was computed on. Raises
    RunError when its config cannot be read.
    """
    folder = RunFolder(path)
    config, kept = read_config(folder, "give the folder of a run")
    spans = Schedule(config.schedule, config.g.resolution).phases()
    preset, differs = nearest_preset(config)
    return summary(path) | {
        "phases": [
            {"start": s.start_nimg, "stop": s.stop_nimg, "resolution": s.resolution, "fading": s.fading} for s in spans
        ],
        "pictures": pictures(path),
        "snapshots": snapshots(path),
        "reals": folder.reals.exists(),
        "config": dict(flat_fields(config)),
        "preset": preset,
        "differs": differs,
        "data": kept["data"],
        "init": kept["init"],
        "losses": losses(folder),
        "speed": speed(folder),
        "metrics": curves(folder),
        "machines": list(read_lines(folder.machines)),
    }


def pictures(path: Path) -> list[int]:
    """The moments of which there is a picture of generated images: nimg, in order."""
    return sorted(_numbers(path, "fakes-", ".png"))


def snapshots(path: Path) -> list[int]:
    """The moments of which there is a generator: nimg, in order."""
    return sorted(_numbers(RunFolder(path).snapshots, "generator-", ".safetensors"))


def losses(folder: RunFolder) -> dict[str, Any]:
    """Every term of the loss over training, each the mean since the line before."""
    rows = thinned(list(read_lines(folder.stats, _Stats)))
    names = list(dict.fromkeys(name for row in rows for name in row if name not in _ABOUT))
    return {
        "nimg": [row["nimg"] for row in rows],
        "terms": {name: [_number(row.get(name)) for row in rows] for name in names},
    }


def speed(folder: RunFolder) -> dict[str, Any]:
    """Images per second, and seconds of training until then."""
    rows = thinned(list(read_lines(folder.timing, _Timing)))
    return {name: [_number(row.get(name)) for row in rows] for name in ("nimg", "seconds", "img_per_s")}


def curves(folder: RunFolder) -> list[dict[str, Any]]:
    """What was measured: {"metric", "protocol", "data", "resolution", "title", "images", "nimg": [...], "levels"}, the
    last a dictionary by level of {"values": [...], "spread": [...], "floor"}.

    One for each metric, protocol and data set, as values of two of them do not compare.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in read_metrics(folder.metrics):
        groups.setdefault(tuple(row[name] for name in _SAME), []).append(row)
    found = []
    for group, rows in groups.items():
        levels = {}
        for level in rows[-1]["values"]:
            floors = rows[-1].get("floor", rows[-1].get("reals", {}))
            levels[level] = {
                "values": [_number(row["values"].get(level)) for row in rows],
                "spread": [_number(row["spread"].get(level)) for row in rows],
                "floor": _number(floors.get(level)),
            }
        counts, metric = rows[-1].get("images"), rows[-1]["metric"]
        about = dict(zip(_SAME, group, strict=True)) | {"title": value_title(metric)}
        about["images"] = counts.get("fakes") if isinstance(counts, dict) else None
        found.append(about | {"nimg": [row["nimg"] for row in rows], "levels": levels})
    return found


def nearest_preset(config: TrainConfig) -> tuple[str, list[list[Any]]]:
    """The preset that a config differs least from, and where: [field, the preset's value, its own]."""
    own = dict(flat_fields(config))
    told: dict[str, list[list[Any]]] = {}
    for name, preset in PRESETS.items():
        theirs = dict(flat_fields(preset.config))
        told[name] = [[field, theirs[field], value] for field, value in own.items() if value != theirs[field]]
    best = min(told, key=lambda name: sum(field not in FREE_FIELDS for field, *_ in told[name]))
    return best, [row for row in told[best] if row[0] not in ("device", "precision", "labels")]


def config_differences(configs: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    """Fields in which flat configs are not all alike: [field, value of the first, of the second, ...]."""
    rows = list(configs)
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = [[name, *(row.get(name) for row in rows)] for name in names]
    return [row for row in table if any(value != row[1] for value in row[2:])]


def thinned(rows: list[Any], most: int = MOST_POINTS) -> list[Any]:
    """At most so many of them, evenly, the last among them."""
    step = -(-len(rows) // most) if rows else 1
    return rows[(len(rows) - 1) % step :: step]


def _state(folder: RunFolder, nimg: int, total: int) -> tuple[str, str]:
    held = is_locked(folder.path)
    if held is None:  # then by its traces
        held = nimg < total and time.time() - (_changed(folder.timing) or 0) < QUIET_S
    if held:
        return "training", ""
    if nimg >= total and folder.generator.exists():
        return "done", ""
    words = _last_words(folder.log)
    return ("diverged", words) if "training diverged" in words else ("stopped", "")


def _last_words(path: Path) -> str:
    lines = _tail(path).splitlines()
    return lines[-1].decode(errors="replace") if lines else ""


def _last_line(path: Path) -> dict[str, Any]:
    """The last whole line of timing.jsonl, {} if there is none."""
    for line in reversed(_tail(path).split(b"\n")[:-1]):
        try:
            return dict(parse_json(line, _Timing))
        except ValueError:
            continue
    return {}


def _tail(path: Path) -> bytes:
    try:
        with open_plain(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read()
    except OSError:
        return b""


def _changed(path: Path) -> float | None:
    try:
        return min(path.stat().st_mtime, time.time())
    except OSError:
        return None


def _numbers(folder: Path, before: str, after: str) -> Iterator[int]:
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return
    for name in names:
        number = name.removeprefix(before).removesuffix(after)
        if name == f"{before}{number}{after}" and number.isdecimal():
            yield int(number)


def _number(value: Any) -> float | None:
    """JSON knows no NaN, and what was measured may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
