"""What the report says of a study: its table, its pictures, its runs."""

import math
import re
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from progan.metrics.suite import TITLES, value_title
from progan.support.errors import RunError
from progan.support.json_reader import read_json
from progan.support.plain_files import CONFIG_BYTES, read_plain
from progan.view.curves import Line, plotted
from progan.view.embedded import embedded, first_cells, grid_columns, open_picture
from progan.view.run_facts import fakes_at, known_seconds, level_title, term_title
from progan.view.runs import details, find

STUDY = "study.json"
CARD = 4  # images across and down, of a run among the others
PICTURES = {
    "grid.png": "Images of each run, beside those of the data",
    "modes.png": "The modes that each run found: red is a missing one",
    "table.png": "The table, drawn",
    "time-to-quality.png": "Distance to the data against time and images",
}


class _Point(TypedDict):
    nimg: int
    seconds: float
    values: dict[str, float]
    spread: NotRequired[dict[str, float]]


class _TimeToQuality(TypedDict):
    curves: dict[str, list[_Point]]
    floor: dict[str, float]


def study_facts(path: Path, side: int, cell: int) -> dict[str, Any]:
    """What report.html shows of a study, also of one under way. side, cell: as `run_facts.runs_facts` takes them.

    Raises RunError when the folder's study.json cannot be read.
    """
    try:
        facts = read_json(path / STUDY, dict[str, Any], CONFIG_BYTES)
    except (OSError, ValueError):
        raise RunError(f"{path / STUDY}: cannot be read; give the folder of a study") from None
    missing: list[str] = []
    curves = _time_to_quality(path)
    pictures = []
    order = [*PICTURES]
    for file in sorted(path.glob("*.png"), key=lambda file: ([*order, file.name].index(file.name), file.name)):
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
        "name": path.resolve().name,
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
        grid = open_picture(fakes_at(path, nimg), path, (columns * resolution, columns * resolution))
        if grid is not None:
            across = min(CARD, columns)
            shown = embedded(first_cells(grid, resolution, across, across, cell), across * cell)
            break
        missing.append(f"{name}/{fakes_at(path, nimg).name}")
    rulers, nimg = {"": about["phases"]}, about["losses"]["nimg"]
    terms = [*about["losses"]["terms"].items()][:1]
    charts = [plotted(term_title(term), [Line("", nimg, values)], rulers) for term, values in terms]
    seconds = known_seconds(about["seconds"])
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
    for level in sorted(levels, key=lambda level: (level != "average", level in TITLES)):
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
            what = value_title(level) if level in TITLES else f"{value_title('swd')}, {level_title(level)}"
            title = f"{what}, by {'images' if key == 'nimg' else 'time'}"
            charts.append(plotted(title, lines, {}, unit))
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


def _finite(value: Any, other: Any = 0.0) -> Any:
    return value if isinstance(value, int | float) and math.isfinite(value) else other
