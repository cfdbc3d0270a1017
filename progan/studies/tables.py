"""Tables in Markdown, for people and for the documents, and the files of a figure."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from progan.support.files import write_json, write_text
from progan.support.terminal import say


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: int, tight: bool = False) -> str:
    """A line for the heads, a rule and a line per row, each with its line end.

    words: how many columns, from the first, hold words and are aligned left; the others hold numbers. tight: a rule
    without spaces, and one space in an empty cell in place of two.
    """
    side, empty = ("", " ") if tight else (" ", "  ")
    lines = [[f" {cell} " if cell else empty for cell in cells] for cells in (heads, *rows)]
    lines.insert(1, [f"{side}---{':' * (column >= words)}{side}" for column in range(len(heads))])
    return "".join(f"|{'|'.join(cells)}|\n" for cells in lines)


def plus_minus(value: float, spread: float | None, form: str = ".4g", spread_form: str = "") -> str:
    """'12.5 ± 0.25', or '12.5' where there is no spread. spread_form: of the spread, where it is not the value's."""
    return f"{value:{form}}" + ("" if spread is None else f" ± {spread:{spread_form or form}}")


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1), which one value alone has not; NaN and none when a value is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def not_there(missing: Sequence[str]) -> str:
    """A line that names the runs which a report goes without; nothing where it has all."""
    return f"Not there yet: {'; '.join(missing)}." if missing else ""


def write_figure(out: Path, name: str, data: Any, text: str, draw: Callable[[Path], Path | None]) -> list[Path]:
    """Write what a figure shows as NAME.json, .md and .png into `out`; returns the paths of those that there are.

    draw: writes the picture, or returns None where that cannot be drawn.
    """
    paths = [out / f"{name}.{kind}" for kind in ("json", "md", "png")]
    write_json(paths[0], data)
    write_text(paths[1], f"{text.rstrip()}\n")
    return paths if draw(paths[2]) else paths[:2]


def show(text: str, written: Iterable[Path]) -> None:
    """Print a table, and where it and what belongs to it was written, if it was."""
    say(text)
    if paths := ", ".join(map(str, written)):
        say(f"written to {paths}")
