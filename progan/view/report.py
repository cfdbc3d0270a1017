"""The report: a run, two runs side by side, or a study, as one page that needs no script, no server and no network."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

import progan
from progan.evaluation.meter import number
from progan.support.config_io import print_per_resolution
from progan.support.errors import ConfigError, RunError
from progan.support.files import write_text
from progan.support.progress import duration
from progan.support.run_files import RunFolder
from progan.support.terminal import cleaned
from progan.view.curves import kimg
from progan.view.run_facts import runs_facts
from progan.view.runs import find
from progan.view.study_facts import STUDY, study_facts

MOST_BYTES = 10_000_000
# Pixels of a large picture, and of an image in a strip: the first with which the page is small enough.
SIDES = ((2048, 128), (1024, 64), (512, 32))


def write_report(paths: Sequence[Path], out: Path, *, data: Path | None = None, title: str | None = None) -> int:
    """Write the page of a run, of two runs, or of a study; returns its size in bytes, at most MOST_BYTES.

    paths: one or two folders; data: the data set they learned from, whose author, licence and making the page then
    tells, where the weights do not. Equal folders give equal bytes. Raises ConfigError for other numbers of folders
    or a study's data,
    RunError when one is no run or study, and DataError when the data set is not theirs.
    """
    study = (paths[0] / STUDY).is_file() if paths else False
    if len(paths) not in (1, 2) or (len(paths) == 2 and any((path / STUDY).is_file() for path in paths)):
        raise ConfigError("RUN: give the folder of one run, of two runs, or of one study")
    if study and data is not None:
        raise ConfigError("--data: goes with runs, for a study says itself what it was trained on; leave it out")
    if not study:
        for path in paths:
            _check_run(path)
    for side, cell in SIDES:
        facts = study_facts(paths[0], side, cell) if study else runs_facts(paths, data, side, cell)
        page = _render(title=title or facts["name"], **facts)
        size = len(page.encode(errors="backslashreplace"))
        if size <= MOST_BYTES:
            write_text(out, page)
            return size
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
