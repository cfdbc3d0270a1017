"""What the report says of one run, or of two side by side."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from PIL import Image

from progan.data.store.manifest import read_manifest
from progan.networks import Discriminator, Generator, parameter_count
from progan.run.folder import read_config
from progan.schedule import Schedule
from progan.support.errors import DataError, RunError
from progan.support.json_reader import parse_json
from progan.support.run_files import RunFolder, read_facts
from progan.support.terminal import cleaned
from progan.view.curves import Line, plotted
from progan.view.embedded import Picture, embedded, first_cells, grid_columns, moments, open_picture
from progan.view.reproduce import evaluate_commands, train_command
from progan.view.runs import config_differences, details

STRIP = 10  # moments of growth
ROWS = {1: 6, 2: 3}  # latents, by the number of runs
TERMS = 24  # of the loss, at most: a run of this program has up to 8
_VERSIONS = (("progan", "progan"), ("PyTorch", "torch"), ("Python", "python"))


class _Data(TypedDict):
    """What weights and manifests say of the data."""

    hash: NotRequired[str]
    count: NotRequired[int | None]
    source: NotRequired[dict[str, Any] | None]
    attribution: NotRequired[dict[str, Any] | None]
    command: NotRequired[str]


def runs_facts(paths: Sequence[Path], data: Path | None, side: int, cell: int) -> dict[str, Any]:
    """What report.html shows of one run or two. side, cell: pixels of a picture, and of an image in a strip, at most.

    Raises RunError when a config cannot be read, DataError when `data` is not what they learned from.
    """
    names = _names(paths)
    labels = ("A", "B") if len(paths) == 2 else ("",)
    facts = zip(paths, names, labels, strict=True)
    runs = [_run(path, name, label, data, side, cell, ROWS[len(paths)]) for path, name, label in facts]
    rulers = _rulers(runs)
    terms = list(dict.fromkeys(name for run in runs for name in run["losses"]["terms"]))[:TERMS]
    charts = []
    for term in terms:
        losses = [(run["label"], run["losses"]) for run in runs if term in run["losses"]["terms"]]
        lines = [Line(label, each["nimg"], each["terms"][term]) for label, each in losses]
        charts.append(plotted(term_title(term), lines, rulers))
    lines = [Line(run["label"], run["speed"]["nimg"], run["speed"]["img_per_s"]) for run in runs]
    charts.append(plotted("Images per second", lines, rulers))
    measured, drawn = _metrics(runs, rulers)
    return {
        "kind": "run",
        "name": " and ".join(names),
        "runs": runs,
        "alike": all(run["data"] == runs[0]["data"] for run in runs),
        "charts": charts,
        "measured": measured,
        "metric_charts": drawn,
        "differences": config_differences([run["config"] for run in runs]) if len(runs) > 1 else [],
        "missing": [f"{run['label']} {name}".strip() for run in runs for name in run["missing"]],
    }


def _run(path: Path, name: str, label: str, data: Path | None, side: int, cell: int, rows: int) -> dict[str, Any]:
    folder, about = RunFolder(path), details(path)
    config, _ = read_config(folder, "give the folder of a run")
    resolution, columns = config.g.resolution, grid_columns(config.g.resolution)
    rows = min(rows, columns**2)
    whole = (columns * resolution, columns * resolution)
    missing: list[str] = []

    def opened(file: Path, size: tuple[int, int] | None = whole) -> Image.Image | None:
        picture = open_picture(file, path, size)
        if picture is None:
            missing.append(file.name)
        return picture

    strip = _strip(path, about, opened, cell, rows)
    newest = opened(fakes_at(path, strip[-1]["nimg"])) if strip else None
    reals = opened(folder.reals) if folder.reals.exists() else None
    near = max(path.glob("neighbours*.png"), key=lambda file: file.stem, default=None)
    neighbours = None if near is None else opened(near, None)
    with torch.device("meta"):
        parameters = [parameter_count(network) for network in (Generator(config.g), Discriminator(config.d))]
    facts = _data_facts(path, about["data"], data)
    seconds = known_seconds(about["seconds"])
    where = "DATA" if data is None else str(data)
    return about | {
        "name": name,
        "label": label,
        "strip": strip,
        "rows": rows,
        "images": columns**2,
        "fakes": newest and embedded(newest, side),
        "real_picture": reals and embedded(reals, side // 2 if label else side),
        "neighbours": neighbours and embedded(neighbours, side),
        "parameters": parameters,
        "channels": config.g.channels,
        "classes": config.g.label_dim,
        "seconds": seconds,
        "average": about["nimg"] / seconds if seconds else None,
        "data": facts,
        "machines": _machines(about["machines"]),
        "commands": [
            *([str(facts["command"])] if facts.get("command") else []),
            train_command(config, about["preset"], data=where, out=name, init=str(about["init"] or "")),
            *evaluate_commands(about["metrics"], config, data=where, out=name),
        ],
        "missing": list(dict.fromkeys(missing)),
    }


def _strip(path: Path, about: Mapping[str, Any], opened: Any, cell: int, rows: int) -> list[dict[str, Any]]:
    """The first images of some pictures of a run, one above the other, by moment; the unreadable are passed over."""
    resolution, left = about["full"], list(about["pictures"])
    schedule = Schedule(read_config(RunFolder(path), "")[0].schedule, resolution)
    read: dict[int, Picture | None] = {}
    while True:
        chosen = moments(left, about["phases"], STRIP)
        for nimg in chosen:
            if nimg not in read:
                grid = opened(fakes_at(path, nimg))
                read[nimg] = grid and embedded(first_cells(grid, resolution, 1, rows, cell), rows * cell)
        if all(read[nimg] for nimg in chosen):
            break
        left = [nimg for nimg in left if read.get(nimg, True)]
    phases = [schedule.at(max(0, min(nimg, about["total"] - 1))) for nimg in chosen]
    return [
        {"nimg": nimg, "picture": read[nimg], "resolution": phase.resolution, "alpha": phase.alpha}
        for nimg, phase in zip(chosen, phases, strict=True)
    ]


def fakes_at(path: Path, nimg: int) -> Path:
    """The picture that a run made of its generator when so many images had been shown."""
    return path / f"fakes-{nimg:09d}.png"


def _metrics(
    runs: Sequence[Mapping[str, Any]], rulers: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The newest value of everything that was measured, and the curves of what was measured more than once."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any] | None]] = {}
    for i, run in enumerate(runs):
        for curve in run["metrics"]:
            key = tuple(curve[name] for name in ("metric", "protocol", "data", "resolution"))
            found.setdefault(key, [None] * len(runs))[i] = curve
    measured, charts = [], []
    for curves in found.values():
        first = next(curve for curve in curves if curve)
        levels = list(dict.fromkeys(level for curve in curves if curve for level in curve["levels"]))
        for level in sorted(levels, key=lambda level: level != "average"):
            found_here = [curve["levels"].get(level) if curve else None for curve in curves]
            lines = [
                Line(run["label"], curve["nimg"], here["values"], here["spread"], here["floor"])
                if curve and here
                else Line(run["label"], [], [])
                for run, curve, here in zip(runs, curves, found_here, strict=True)
            ]
            named = ", ".join(part for part in (first["title"], level_title(level)) if part)
            newest = [line.points()[-1] if line.points() else None for line in lines]
            floor = next((line.floor for line in lines if line.floor is not None), None)
            measured.append({"title": named, "images": first["images"], "newest": newest, "floor": floor})
            if any(len(line.points()) > 1 for line in lines):
                charts.append(plotted(named, lines, rulers))
    return measured, charts


def _rulers(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The phases of all runs at once, if they are the same; else of each."""
    steps = [[(p["start"], p["resolution"], p["fading"]) for p in run["phases"]] for run in runs]
    longest = max(runs, key=lambda run: run["total"])
    return {"": longest["phases"]} if all(one == steps[0] for one in steps) else {r["label"]: r["phases"] for r in runs}


def _data_facts(path: Path, own: Any, data: Path | None) -> dict[str, Any]:
    """What is known of the data: what the newest weights say, or its own manifest, which must be of the same data."""
    about: Any = None
    if data is not None:
        about = read_manifest(data)
        if about["hash"] != own:
            raise DataError(f"{data}: is not the data set that {path} was trained on; give that one, or none")
    else:
        try:
            about = read_facts(RunFolder(path).newest_generator()).get("data")
        except RunError:  # no generator yet
            about = None
    try:
        facts: dict[str, Any] = {**parse_json(json.dumps(about or {}), _Data)}
    except ValueError:
        facts = {}
    credit = {name: cleaned(str(value)) for name, value in (facts.get("attribution") or {}).items() if value}
    kind = (facts.get("source") or {}).get("kind")
    return {
        "known": bool(facts),
        "hash": str(own or ""),
        "count": facts.get("count"),
        "what": credit.get("title") or (str(kind) if kind else ""),
        "credit": credit,
        "command": facts.get("command"),
    }


def _machines(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the parts of a run were computed on, in words, each once."""
    said = []
    for line in lines:
        threads = f"{line['threads']} threads" if line.get("threads") else ""
        processes = f"{line['processes']} processes" if line.get("processes", 1) != 1 else ""
        versions = [f"{word} {line[key]}" for word, key in _VERSIONS if line.get(key)]
        parts = [line.get("gpu"), line.get("processor"), threads, processes, *versions]
        said.append(", ".join(str(part) for part in parts if part))
    return list(dict.fromkeys(text for text in said if text))


def _names(paths: Sequence[Path]) -> list[str]:
    """What the folders are called: their last part, or as many of the last as tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts))):
        tails = ["/".join(part[-count:]) for part in parts]
        if len(set(tails)) == len(tails):
            return tails
    return ["/".join(part[-1:]) for part in parts]  # the same folder twice


def term_title(term: str) -> str:
    """A term of the loss, for people."""
    return term.replace("_", " ").capitalize()


def level_title(level: str) -> str:
    """A level of a metric, for people: '16×16', 'average'."""
    return f"{level}×{level}" if level.isdigit() else level


def known_seconds(seconds: Any) -> float | None:
    """Seconds of training, None where a run does not say them."""
    return seconds if isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0 else None
