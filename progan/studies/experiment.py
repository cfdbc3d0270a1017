"""An experiment: a training run and what is measured at its end, done once and kept beside the run."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

from progan.config import TrainConfig
from progan.data.store.manifest import MANIFEST
from progan.data.store.pyramid import ImagePyramid
from progan.networks import parameter_count
from progan.run.folder import read_config
from progan.run.state import FREE_FIELDS
from progan.support.config_io import flat_fields
from progan.support.errors import RunError
from progan.support.files import write_json
from progan.support.json_reader import parse_json, read_json
from progan.support.plain_files import CONFIG_BYTES, open_plain
from progan.support.run_files import RunFolder
from progan.training import train

Record = dict[str, Any]

RESULT = "result.json"
# How far a run goes may change from one part of it to the next, but makes another result.
WITHOUT_RESULT = set(FREE_FIELDS) - {"schedule.total_nimg"}


class Measure(Protocol):
    """What is done with a finished run: a frozen dataclass that can be pickled.

    Its fields decide the result, but for those that are not compared.
    """

    def __call__(self, folder: RunFolder) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Experiment:
    """A training run and what is measured at its end.

    name: for people; config: fitted to the data; data: folder of a data set; folder: the run's; result: name of the
    file in it that keeps the record.
    """

    name: str
    config: TrainConfig
    data: Path
    folder: Path
    measure: Measure
    result: str = RESULT

    def key(self) -> dict[str, Any]:
        """All that decides the record: configuration, data, and what is measured."""
        fields = {name: value for name, value in flat_fields(self.config) if name not in WITHOUT_RESULT}
        measure = {
            field.name: _content(getattr(self.measure, field.name))
            for field in dataclasses.fields(self.measure)  # type: ignore[arg-type]
            if field.compare
        }
        key = {
            "config": fields,
            "data": _content(self.data),
            "measure": [type(self.measure).__name__, measure],
        }
        return dict(json.loads(json.dumps(key, default=str)))  # as it will be read back, to be compared

    def record(self) -> Record | None:
        """The record of before, if it is whole and of the same key."""
        try:
            saved = read_json(self.folder / self.result, _Saved, CONFIG_BYTES)
            fields = saved["key"]["config"]
            if fields["precision"] == "auto":  # of a time when a record did not say what that had come to
                fields["precision"] = read_config(RunFolder(self.folder), "")[0].precision
            saved["key"]["measure"][1].pop("device", None)  # of a time when it was part of the key
            own = self.key()
            newer = own["config"].keys() - fields.keys()  # fields that there were not yet, and so as by default
            saved["key"]["config"] |= {name: value for name, value in flat_fields(TrainConfig()) if name in newer}
            return saved["record"] if saved["key"] == own else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RunError):
            return None

    def run(self) -> Record:
        """Train to the end or from where it stopped, measure, keep the record and return it: {"name", "seconds" of
        training, "nimg", "parameters": {"g", "d"}, and what `measure` returned}. As `train`, it may raise Stopped.
        """
        state = train(self.config, ImagePyramid.open(self.data), self.folder)
        parameters = {"g": parameter_count(state.g), "d": parameter_count(state.d)}
        return self.keep(state.nimg, state.seconds, {"parameters": parameters, **self.measure(RunFolder(self.folder))})

    def keep(self, nimg: int, seconds: float, measured: Record) -> Record:
        """Write down what came of the run, and return it."""
        record = {"name": self.name, "seconds": round(seconds, 1), "nimg": nimg, **measured}
        write_json(self.folder / self.result, {"key": self.key(), "record": record})
        return record


class _Saved(TypedDict):
    key: dict[str, Any]
    record: Record


class _Line(TypedDict):
    nimg: int


def trained_nimg(folder: RunFolder) -> int:
    """How far a run is, from the last whole line of its stats; 0 before the first."""
    try:
        with open_plain(folder.stats) as file:
            file.seek(max(0, folder.stats.stat().st_size - 4096))
            lines = file.read().split(b"\n")
        return parse_json(lines[-2], _Line)["nimg"] if len(lines) > 1 else 0
    except (OSError, ValueError):
        return 0


def _content(value: Any) -> Any:
    """A data set's folder stands for its content; other values for themselves."""
    if isinstance(value, Path) and (value / MANIFEST).exists():
        return ImagePyramid.open(value).hash
    return value
