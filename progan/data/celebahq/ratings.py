"""The quality of every photograph, kept line by line so that rating them can go on after an interruption."""

import json
import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from progan.data.source import BadImage
from progan.data.store.partial import held
from progan.support.errors import DataError, printable
from progan.support.json_reader import parse_json
from progan.support.plain_files import LIST_BYTES, read_plain
from progan.support.terminal import say
from progan.support.workers import work

Photo = TypeVar("Photo")


class _Rating(TypedDict):
    file: str
    quality: float


def rate(
    photos: dict[str, Photo],
    quality: Callable[[Photo], float | BadImage],
    *,
    path: Path,
    recipe: dict[str, Any],
    workers: int | None = None,
) -> tuple[dict[str, float], list[BadImage]]:
    """File name -> quality of every photograph that has one, and those that have none.

    photos: file name -> what `quality` takes; both picklable. What `path` holds already is not rated again; bad
    photographs are tried again. recipe: what a quality depends on, in JSON.
    Raises DataError when `path` is of another recipe, is damaged, cannot be written or is another process's.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with held(path):
            rated = _read(path, recipe)
            missing = [name for name in photos if name not in rated]
            if missing:
                there = len(photos) - len(missing)
                say(f"rating {len(missing):,} photographs; {there:,} are rated already in {path}", error=True)
            bad = []
            results = work(quality, (photos[name] for name in missing), total=len(missing), together=1, workers=workers)
            with closing(results), path.open("a") as file:
                for name, result in zip(missing, results, strict=True):
                    if isinstance(result, BadImage):
                        bad.append(result)
                        continue
                    rated[name] = result
                    file.write(json.dumps({"file": name, "quality": result}) + "\n")
                    file.flush()  # survives a kill of the process
    except OSError as error:
        reason = printable(error)
        raise DataError(f"{path}: cannot be written ({reason}); free some space or choose another --out") from error
    return {name: rated[name] for name in photos if name in rated}, bad


def _read(path: Path, recipe: dict[str, Any]) -> dict[str, float]:
    """What was rated already; makes the file if there is none, and cuts off a torn last line, left by a kill."""
    data = read_plain(path, LIST_BYTES)
    *lines, torn = data.split(b"\n")
    if not lines:
        path.write_text(json.dumps(recipe) + "\n")
        return {}
    if torn:
        with path.open("r+b") as file:
            file.truncate(len(data) - len(torn))
    rated: dict[str, float] = {}
    for number, line in enumerate(lines, 1):
        try:
            row: dict[str, Any] = {**parse_json(line, _Rating if number > 1 else dict[str, Any])}
            if number > 1:
                rated[row["file"]] = _finite(row["quality"])
            elif differ := sorted(key for key in {*row, *recipe} if row.get(key) != recipe.get(key)):
                other = printable(differ[0])
                raise DataError(f"{path}: was made with another {other}; delete it or give the options of then")
        except ValueError:
            raise DataError(f"{path}, line {number}: is no rating; delete that line or the file") from None
    return rated


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return float(value)
