"""The report: a run, two runs side by side, or a study, as one page that needs no script, no server and no network."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

import progan
from progan.data.store.manifest import read_manifest
from progan.evaluation.meter import number
from progan.networks import Discriminator, Generator, parameter_count
from progan.run.folder import read_config
from progan.schedule import Schedule
from progan.support.config_io import print_per_resolution
from progan.support.errors import ConfigError, DataError, RunError
from progan.support.files import write_text
from progan.support.json_reader import parse_json, read_json
from progan.support.plain_files import CONFIG_BYTES, read_plain
from progan.support.progress import duration
from progan.support.run_files import RunFolder, read_facts
from progan.support.terminal import cleaned
from progan.view.curves import Line, draw, kimg
from progan.view.embedded import Picture, embedded, first_cells, grid_columns, moments, open_picture
from progan.view.reproduce import evaluate_commands, train_command
from progan.view.runs import config_differences, details, find, thinned

MOST_BYTES = 10_000_000
# Pixels of a large picture, and of an image in a strip: the first with which the page is small enough.
SIDES = ((2048, 128), (1024, 96), (512, 64), (256, 32))
STRIP = 10  # moments of growth
ROWS = {1: 6, 2: 3}  # latents, by the number of runs
CARD = 4  # images across and down, of a run among those of a study
TERMS = 24  # of the loss, at most: a run of this program has up to 8
NUMBERS = 100  # lines of the table of a curve
STUDY = "study.json"
PICTURES = {
    "grid.png": "Images of each run, beside those of the data",
    "modes.png": "The modes that each run found: red is a missing one",
    "table.png": "The table, drawn",
    "time-to-quality.png": "Distance to the data against time and images",
}


class _Data(TypedDict):
    """What weights and manifests say of the data."""

    hash: NotRequired[str]
    count: NotRequired[int | None]
    source: NotRequired[dict[str, Any] | None]
    attribution: NotRequired[dict[str, Any] | None]
    command: NotRequired[str]


class _Point(TypedDict):
    nimg: int
    seconds: float
    values: dict[str, float]
    spread: NotRequired[dict[str, float]]


class _TimeToQuality(TypedDict):
    curves: dict[str, list[_Point]]
    floor: dict[str, float]


def write_report(paths: Sequence[Path], out: Path, *, data: Path | None = None, title: str | None = None) -> int:
    """Write the page of a run, of two runs, or of a study; returns its size in bytes, at most MOST_BYTES.

    paths: one or two folders; data: the data set they learned from, whose author, licence and making the page then
    tells, where the weights do not. Equal folders give equal bytes. Raises ConfigError for other numbers of folders,
    RunError when one is no run or study, and DataError when the data set is not theirs.
    """
    study = (paths[0] / STUDY).is_file() if paths else False
    if len(paths) not in (1, 2) or (len(paths) == 2 and any((path / STUDY).is_file() for path in paths)):
        raise ConfigError("RUN: give the folder of one run, of two runs, or of one study")
    if not study:
        for path in paths:
            _check_run(path)
    for side, cell in SIDES:
        facts = _study(paths[0], side, cell) if study else _runs(paths, data, side, cell)
        page = _render(title=title or facts["name"], **facts)
        if len(page.encode(errors="backslashreplace")) <= MOST_BYTES:
            write_text(out, page)
            return len(page.encode(errors="backslashreplace"))
    raise RunError(
        f"{paths[0]}: its texts alone make a page of over {MOST_BYTES / 1e6:g} MB; it is no run of progan train"
    )


def _check_run(path: Path) -> None:
    if RunFolder(path).config.exists():
        return
    inside = find(path)
    if found := [*inside.studies, *inside.runs]:
        raise RunError(f"{path}: is a folder of {len(found)} runs and studies; give one of them, such as {found[0]}")
    what = "holds no run and no study" if path.is_dir() else "there is no such folder"
    raise RunError(f"{path}: {what}; a run comes to be by `progan train --data DATA --out RUN`")


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def _runs(paths: Sequence[Path], data: Path | None, side: int, cell: int) -> dict[str, Any]:
    names = _names(paths)
    labels = ("A", "B") if len(paths) == 2 else ("",)
    facts = zip(paths, names, labels, strict=True)
    runs = [_run(path, name, label, data, side, cell, ROWS[len(paths)]) for path, name, label in facts]
    rulers = _rulers(runs)
    terms = list(dict.fromkeys(name for run in runs for name in run["losses"]["terms"]))[:TERMS]
    charts = [
        _chart(
            _words(term),
            [
                Line(r["label"], r["losses"]["nimg"], r["losses"]["terms"].get(term, [None] * len(r["losses"]["nimg"])))
                for r in runs
            ],
            rulers,
        )
        for term in terms
    ]
    charts.append(
        _chart(
            "Images per second", [Line(r["label"], r["speed"]["nimg"], r["speed"]["img_per_s"]) for r in runs], rulers
        )
    )
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
    newest = opened(_fakes(path, strip[-1]["nimg"])) if strip else None
    reals = opened(folder.reals) if folder.reals.exists() else None
    near = max((file for file in path.glob("neighbours*.png")), default=None)
    neighbours = None if near is None else opened(near, None)
    with torch.device("meta"):
        parameters = [parameter_count(network) for network in (Generator(config.g), Discriminator(config.d))]
    facts = _data_facts(path, about["data"], data)
    seconds = about["seconds"] if _positive(about["seconds"]) else None
    where = "DATA" if data is None else str(data)
    return about | {
        "name": name,
        "label": label,
        "strip": strip,
        "rows": rows,
        "images": columns**2,
        "fakes": newest and embedded(newest, side),
        "real_picture": reals and embedded(reals, side if label == "" else side // 2),
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
                grid = opened(_fakes(path, nimg))
                read[nimg] = grid and embedded(first_cells(grid, resolution, 1, rows, cell), rows * cell)
        if all(read[nimg] for nimg in chosen):
            break
        left = [nimg for nimg in left if read.get(nimg, True)]
    phases = [schedule.at(max(0, min(nimg, about["total"] - 1))) for nimg in chosen]
    return [
        {"nimg": nimg, "picture": read[nimg], "resolution": phase.resolution, "alpha": phase.alpha}
        for nimg, phase in zip(chosen, phases, strict=True)
    ]


def _fakes(path: Path, nimg: int) -> Path:
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
            lines = [
                Line(
                    run["label"],
                    curve["nimg"],
                    *(curve["levels"][level][name] for name in ("values", "spread", "floor")),
                )
                if curve and level in curve["levels"]
                else Line(run["label"], [], [])
                for run, curve in zip(runs, curves, strict=True)
            ]
            named = ", ".join(part for part in (first["title"], _level(level)) if part)
            newest = [line.points()[-1] if line.points() else None for line in lines]
            floors = [line.floor for line in lines if line.floor is not None]
            measured.append(
                {"title": named, "images": first["images"], "newest": newest, "floor": floors[0] if floors else None}
            )
            if any(len(line.points()) > 1 for line in lines):
                charts.append(_chart(named, lines, rulers))
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
    credit = {name: str(value) for name, value in (facts.get("attribution") or {}).items() if value}
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


_VERSIONS = (("progan", "progan"), ("PyTorch", "torch"), ("Python", "python"))


def _names(paths: Sequence[Path]) -> list[str]:
    """What the folders are called: their last part, or as many of the last as tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts))):
        tails = ["/".join(part[-count:]) for part in parts]
        if len(set(tails)) == len(tails):
            return tails
    return ["/".join(part[-1:]) for part in parts]  # the same folder twice


# ---------------------------------------------------------------------------------------------------------------------
# Studies


def _study(path: Path, side: int, cell: int) -> dict[str, Any]:
    try:
        facts = read_json(path / STUDY, dict[str, Any], CONFIG_BYTES)
    except (OSError, ValueError):
        raise RunError(f"{path / STUDY}: cannot be read; give the folder of a study") from None
    missing: list[str] = []
    curves = _time_to_quality(path)
    pictures = []
    for file in sorted(
        path.glob("*.png"), key=lambda file: (file.name not in PICTURES, [*PICTURES, file.name].index(file.name))
    ):
        if file.stem == "time-to-quality" and curves:
            continue
        picture = open_picture(file, path)
        if picture is None:
            missing.append(file.name)
        else:
            pictures.append({"caption": PICTURES.get(file.name, file.name), "picture": embedded(picture, side)})
    cards = []
    for run in find(path).runs:
        try:
            cards.append(_card(run, run.relative_to(path).as_posix().removeprefix("rows/"), cell, missing))
        except RunError:
            missing.append(run.relative_to(path).as_posix())
    return {
        "kind": "study",
        "name": _names([path])[0],
        "facts": {str(name): value for name, value in facts.items() if not isinstance(value, list | dict)},
        "blocks": _blocks(path),
        "pictures": pictures,
        "cards": cards,
        "charts": curves,
        "missing": missing,
    }


def _card(path: Path, name: str, cell: int, missing: list[str]) -> dict[str, Any]:
    """A run among others: its newest images, how far it came, the first term of its loss."""
    about = details(path)
    resolution, columns = about["full"], grid_columns(about["full"])
    shown = None
    for nimg in reversed(about["pictures"]):
        grid = open_picture(_fakes(path, nimg), path, (columns * resolution, columns * resolution))
        if grid is not None:
            across = min(CARD, columns)
            shown = embedded(first_cells(grid, resolution, across, across, cell), across * cell)
            break
        missing.append(f"{name}/{_fakes(path, nimg).name}")
    terms = [(_words(term), values) for term, values in about["losses"]["terms"].items()][:1]
    charts = [
        _chart(term, [Line("", about["losses"]["nimg"], values)], {"": about["phases"]}) for term, values in terms
    ]
    seconds = about["seconds"] if _positive(about["seconds"]) else None
    return about | {"name": name, "picture": shown, "charts": charts, "seconds": seconds}


def _time_to_quality(path: Path) -> list[dict[str, Any]]:
    """The curves of `progan ablate --figure time-to-quality`: each level against minutes and against images."""
    try:
        found = read_json(path / "time-to-quality.json", _TimeToQuality, CONFIG_BYTES)
    except (OSError, ValueError):
        return []
    points = [point for curve in found["curves"].values() for point in curve]
    levels = list(dict.fromkeys(level for point in points for level in point["values"]))
    charts = []
    for level in sorted(levels, key=lambda level: level != "average"):
        for key, scale, unit in (("nimg", 1.0, "kimg"), ("seconds", 60.0, "min")):
            lines = [
                Line(
                    name,
                    [_finite(point[key]) / scale for point in curve],  # type: ignore[literal-required]
                    [_finite(point["values"].get(level), None) for point in curve],
                    [_finite(point.get("spread", {}).get(level), None) for point in curve],
                    _finite(found["floor"].get(level), None),
                )
                for name, curve in found["curves"].items()
            ]
            title = f"SWD x1e3, {_level(level)}, by {'images' if key == 'nimg' else 'time'}"
            charts.append(_chart(title, lines, {}, unit))
    return charts


def _blocks(path: Path) -> list[dict[str, Any]]:
    """The study's table.md: {"heads", "rows", "words"} for each table, {"text"} for each paragraph."""
    try:
        text = read_plain(path / "table.md", CONFIG_BYTES).decode(errors="replace")
    except OSError:
        return []
    blocks: list[dict[str, Any]] = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = part.splitlines()
        if lines[0].startswith("#"):
            continue
        if lines[0].startswith("|") and len(lines) > 1:
            heads, rule, *rows = ([_inline(cell) for cell in _cells(line)] for line in lines)
            right = [cell.strip().endswith(":") for cell in _cells(lines[1])]
            blocks.append(
                {"heads": heads, "rows": rows, "right": right + [False] * max(map(len, [heads, rule, *rows]))}
            )
        else:
            blocks.append({"text": _inline(" ".join(lines))})
    return blocks


def _cells(line: str) -> list[str]:
    inside = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
    return [cell.strip().replace("\\|", "|") for cell in inside]


def _inline(text: str) -> list[tuple[str, str]]:
    """('b', 'bold'), ('code', 'code') and ('', 'other') parts."""
    parts = re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", text)
    kinds = [
        ("code", part[1:-1]) if part[:1] == "`" and i % 2 else ("b", part[2:-2]) if i % 2 else ("", part)
        for i, part in enumerate(parts)
    ]
    return [(kind, part) for kind, part in kinds if part]


# ---------------------------------------------------------------------------------------------------------------------
# The page


def _chart(title: str, lines: Sequence[Line], rulers: Mapping[str, Any], unit: str = "kimg") -> dict[str, Any]:
    """A drawing, and the numbers that it shows: {"title", "svg", "unit", "heads", "rows", "count"}."""
    lines = [line for line in lines if line.points()]
    at: dict[float, list[Any]] = {}
    for i, line in enumerate(lines):
        for x, y, spread in line.points():
            at.setdefault(x, [None] * len(lines))[i] = (y, spread)
    rows = [(x, values) for x, values in sorted(at.items())]
    svg = draw(
        _clean(title),
        [Line(_clean(line.label), line.x, line.y, line.spread, line.floor) for line in lines],
        rulers,
        unit=unit,
    )
    heads = [line.label or "value" for line in lines]
    return {
        "title": title,
        "svg": svg,
        "unit": unit,
        "heads": heads,
        "rows": thinned(rows, NUMBERS),
        "count": len(rows),
    }


def _render(**facts: Any) -> str:
    files = resources.files("progan")
    style = "".join(files.joinpath(name).read_text("utf-8") for name in ("export/page/page.css", "view/report.css"))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_clean)
    environment.filters |= {"kimg": kimg, "number": number, "spread": _spread, "commas": _commas}
    environment.filters |= {"duration": duration, "setting": _setting}
    return environment.from_string(files.joinpath("view/report.html").read_text("utf-8")).render(
        **facts,
        style=Markup(style),
        style_hash="sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        mark=f"progan report {progan.__version__}",
    )


def _clean(value: Any) -> Any:
    """What comes from outside, without characters that a page cannot hold or that hide others."""
    return cleaned(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _setting(value: Any) -> str:
    """A value of a config for people."""
    if isinstance(value, dict):
        return str(value[4]) if list(value) == [4] else print_per_resolution(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, "") else str(value)


def _commas(value: int) -> str:
    return f"{value:,}"


def _spread(value: float) -> str:
    return f"{value:.2g}"


def _words(term: str) -> str:
    return term.replace("_", " ").capitalize()


def _level(level: str) -> str:
    return f"{level}×{level}" if level.isdigit() else level


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _finite(value: Any, other: Any = 0.0) -> Any:
    return value if isinstance(value, int | float) and math.isfinite(value) else other
