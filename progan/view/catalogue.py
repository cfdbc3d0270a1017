"""What a folder holds for the viewer, by the names that addresses give it; found anew as it changes."""

import io
import time
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from progan.data.show import contact_sheet
from progan.data.store.pyramid import ImagePyramid
from progan.run.folder import read_config
from progan.support.errors import UserError, printable
from progan.support.files import is_locked
from progan.support.json_reader import parse_json
from progan.support.plain_files import CONFIG_BYTES, read_plain
from progan.support.run_files import RunFolder
from progan.view.runs import Found, find, is_inside, run_id, summary

FIND_S = 4.0  # between two looks for new folders
REPORT_FORMAT = "progan data report"
REPORT_BYTES = 2**25


class Catalogue:
    """The runs, data sets and studies of a folder, and data sets elsewhere."""

    def __init__(self, root: Path, data: tuple[Path, ...] = ()) -> None:
        self.root, self.inside = root, root.resolve()
        self.elsewhere = [path.resolve() for path in data]
        for path in self.elsewhere:
            ImagePyramid.open(path)
        self._found = Found([], [], [])
        self._looked = 0.0
        self._summaries: dict[Path, tuple[Any, dict[str, Any]]] = {}

    def found(self) -> Found:
        """What is there, as of the last few seconds."""
        if time.monotonic() - self._looked > FIND_S or not self._looked:
            self._found, self._looked = find(self.root), time.monotonic()
        return self._found

    def overview(self) -> dict[str, Any]:
        """A line for everything: {"folder", "runs", "data", "studies"}."""
        found = self.found()
        return {
            "folder": printable(self.inside),
            "runs": [self._summary(path) for path in found.runs],
            "data": [{"id": run_id(path), "name": self.name(path)} for path in [*found.data, *self.elsewhere]],
            "studies": [{"id": run_id(path), "name": self.name(path)} for path in found.studies],
        }

    def name(self, path: Path) -> str:
        """The path from the folder that is viewed, for people."""
        if path == self.root:
            return printable(self.inside.name)
        return printable(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def run(self, wanted: str) -> Path:
        """The folder of a run."""
        return self._one(self.found().runs, wanted)

    def data(self, wanted: str) -> Path:
        """The folder of a data set."""
        return self._one([*self.found().data, *self.elsewhere], wanted)

    def data_of(self, run: Path) -> tuple[str, Path] | None:
        """The data set that a run learned from, if it is known here: its name in addresses, and its folder."""
        try:
            wanted = read_config(RunFolder(run), "")[1]["data"]
        except UserError:
            return None
        for path in [*self.found().data, *self.elsewhere]:
            try:
                if ImagePyramid.open(path).hash == wanted:
                    return run_id(path), path
            except UserError:
                continue
        return None

    def check_inside(self, path: Path) -> None:
        """Refuse a file that is a link to somewhere else, and one that is not there."""
        if not path.exists() or not is_inside(path, self.inside):
            raise HTTPException(404)

    def describe_data(self, wanted: str) -> dict[str, Any]:
        """A data set for people: {"name", "facts", "files", "labels", "report"}."""
        path = self.data(wanted)
        pyramid = ImagePyramid.open(path)
        manifest = pyramid.manifest
        facts = {
            "images": f"{len(pyramid):,}",
            "shape": f"{pyramid.channels} x {pyramid.resolution} x {pyramid.resolution}, uint8",
            **{name: _plain(value) for name, value in manifest["source"].items()},
            **{name: _plain(value) for name, value in (manifest.get("attribution") or {}).items()},
        }
        if manifest.get("command"):
            facts["command"] = manifest["command"]
        names = pyramid.label_names
        labels = [] if names is None else list(zip(names, pyramid.label_counts(), strict=True))
        return {
            "name": self.name(path),
            "facts": [[name.replace("_", " "), value] for name, value in facts.items() if value],
            "levels": pyramid.resolutions,
            "labels": [[name, int(count)] for name, count in labels[:200]],
            "report": self._report(path),
        }

    def sheet(self, wanted: str) -> bytes:
        """The contact sheet of a data set at every level, as a PNG."""
        memory = io.BytesIO()
        contact_sheet(ImagePyramid.open(self.data(wanted))).save(memory, "PNG")
        return memory.getvalue()

    def describe_study(self, wanted: str) -> dict[str, Any]:
        """A study: {"name", "facts", "table" in Markdown, "pictures", "runs"}."""
        path = self._one(self.found().studies, wanted)
        runs = [run for run in self.found().runs if run.is_relative_to(path)]
        pictures = sorted(entry.name for entry in path.glob("*.png") if is_inside(entry, self.inside))
        return {
            "name": self.name(path),
            "facts": _json_of(path / "study.json", CONFIG_BYTES),
            "table": _text_of(path / "table.md"),
            "pictures": pictures,
            "runs": [self._summary(run) for run in runs],
        }

    def study_picture(self, wanted: str, name: str) -> Path:
        """One of the pictures that `describe_study` names."""
        path = self._one(self.found().studies, wanted)
        if name not in self.describe_study(wanted)["pictures"]:
            raise HTTPException(404)
        return path / name

    def _one(self, paths: list[Path], wanted: str) -> Path:
        for path in paths:
            if run_id(path) == wanted:
                return path
        raise HTTPException(404, "it is no longer there")

    def _summary(self, path: Path) -> dict[str, Any]:
        """A run in a line, read anew only when something of it has changed."""
        folder = RunFolder(path)
        stamp = (*(_stamp(place) for place in (path, folder.config, folder.timing, folder.log)), is_locked(path))
        if self._summaries.get(path, (None,))[0] != stamp:
            self._summaries[path] = (stamp, summary(path) | {"name": self.name(path)})
        return self._summaries[path][1]

    def _report(self, data: Path) -> dict[str, Any] | None:
        """What `progan data doctor --report` wrote, into the data set's folder or beside it."""
        for path in [*sorted(data.glob("*.json")), *sorted(data.parent.glob("*.json"))]:
            report = _json_of(path, REPORT_BYTES)
            if report.get("format") == REPORT_FORMAT and report.get("name") in (data.resolve().name, None):
                kinds = report.get("kinds")
                return {"file": printable(path.name), "kinds": kinds if isinstance(kinds, dict) else {}}
        return None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _json_of(path: Path, most: int) -> dict[str, Any]:
    try:
        return parse_json(read_plain(path, most), dict[str, Any])
    except (OSError, ValueError):
        return {}


def _text_of(path: Path) -> str:
    try:
        return read_plain(path, CONFIG_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value):,} (listed in dataset.json)" if value else ""
    return ", ".join(f"{name} {item}" for name, item in value.items()) if isinstance(value, dict) else str(value)
