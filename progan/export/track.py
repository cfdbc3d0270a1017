"""What a run has written, sent on to a tracker of experiments: while it trains or afterwards, each point once.

Training knows nothing of it: all is read from the run's folder. The step is images shown.
"""

import json
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from progan.config import TrainConfig
from progan.export.trackers import TRACKERS, Tracker
from progan.run.folder import read_config
from progan.run.metrics_log import read_metrics
from progan.support.config_io import print_per_resolution
from progan.support.errors import ConfigError, RunError, printable
from progan.support.files import locked, write_json
from progan.support.json_reader import read_json
from progan.support.plain_files import LIST_BYTES
from progan.support.run_files import RunFolder, nimg_of_weights, read_lines

RECORD = "progan-track.json"
SCHEDULE = ("resolution", "alpha", "batch")
SECONDS_BETWEEN_LOOKS = 2.0


class Sent(TypedDict):
    """What was sent to which tracker: the furthest step of each kind, and what the tracker needs to go on."""

    to: str
    run: str
    began: float
    hyperparameters: bool
    reals: bool
    stats: int
    timing: int
    pictures: int
    metrics: list[list[Any]]
    tracker: dict[str, Any]


class _Time(TypedDict):
    nimg: int
    seconds: float
    img_per_s: float


def track(source: Path, to: str, out: Path, *, follow: bool = False) -> int:
    """Send what the run in `source` has written, and was not sent before, to the tracker `to` under `out`.

    follow: go on as the run does, until it is done. What was sent stands in progan-track.json in `out`, so that
    neither a second call nor a run that goes on from a checkpoint doubles a point. Returns how many steps, measurements
    and pictures went. Raises RunError when there is no run, or `out` holds the points of another, and ConfigError for
    a tracker that is not known or not installed.
    """
    if to not in TRACKERS:
        raise ConfigError(f"--to: {to!r} is not known; use one of {', '.join(TRACKERS)}")
    folder = RunFolder(source)
    _, kept = read_config(folder, "give the folder of a run")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out} is no folder; choose another")
    count = 0
    with locked(out, "progan track"):
        sent = _read_record(out / RECORD, to, kept, folder)
        with TRACKERS[to](out, source.resolve().name, sent["tracker"]) as tracker:
            if not sent["hyperparameters"]:
                tracker.hyperparameters({name: _plain(value) for name, value in kept.items()})
                sent["hyperparameters"] = True
            while True:
                over = not follow or _is_done(folder)  # asked first: what is written until then is sent below
                for _ in _send_news(folder, sent, tracker):
                    count += 1
                sent["tracker"] = tracker.commit()
                write_json(out / RECORD, sent)
                if over:
                    return count
                time.sleep(SECONDS_BETWEEN_LOOKS)


def _read_record(path: Path, to: str, kept: dict[str, Any], folder: RunFolder) -> Sent:
    """What was sent before, or the beginning of a record."""
    run = sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    try:
        sent = read_json(path, Sent, LIST_BYTES)
        if any(len(entry) != 6 for entry in sent["metrics"]):
            raise ValueError("names a measurement that is none")
    except FileNotFoundError:
        began = folder.config.stat().st_mtime
        return {
            "to": to,
            "run": run,
            "began": began,
            "hyperparameters": False,
            "reals": False,
            "stats": -1,
            "timing": -1,
            "pictures": -1,
            "metrics": [],
            "tracker": {},
        }
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({printable(error)}); give --out a new folder") from None
    if (sent["to"], sent["run"]) != (to, run):
        raise RunError(f"{path.parent}: holds the points of another run or tracker; give --out a folder of its own")
    return sent


def _send_news(folder: RunFolder, sent: Sent, tracker: Tracker) -> Iterator[None]:
    """Send what is new, in the order of files, and note it in `sent`; yields for each step, measurement and picture.

    Training only adds to stats.jsonl and timing.jsonl, or cuts lines and writes them again: the furthest step tells
    what is new. Measurements may come late and in any order, so each is noted.
    """
    timing = list(read_lines(folder.timing, _Time))
    clock = [[row["nimg"], row["seconds"]] for row in timing] or [[0, 0.0]]

    def when(nimg: int) -> float:
        return float(sent["began"] + np.interp(nimg, *np.array(clock, dtype=float).T))

    for row in read_lines(folder.stats, dict[str, float]):
        nimg = row.pop("nimg", None)
        if isinstance(nimg, int) and nimg > sent["stats"]:
            named = {f"{'schedule' if name in SCHEDULE else 'loss'}/{name}": value for name, value in row.items()}
            tracker.scalars(nimg, named, when(nimg))
            sent["stats"] = nimg
            yield
    for row in timing:
        if row["nimg"] > sent["timing"]:
            tracker.scalars(row["nimg"], {"speed/img_per_s": row["img_per_s"]}, when(row["nimg"]))
            sent["timing"] = row["nimg"]
            yield
    for row in read_metrics(folder.metrics):
        kind = [row["metric"], row["protocol"], row["data"], row["resolution"], row["mirrored"]]
        if [row["nimg"], *kind] not in sent["metrics"]:
            tracker.scalars(row["nimg"], _measured(row, kind, sent["metrics"]), when(row["nimg"]))
            sent["metrics"].append([row["nimg"], *kind])
            yield
    for path in folder.fakes():
        nimg = int(path.stem.removeprefix("fakes-"))
        if nimg > sent["pictures"]:
            tracker.picture(nimg, "fakes", path, when(nimg))
            sent["pictures"] = nimg
            yield
    if not sent["reals"] and folder.reals.exists():
        tracker.picture(0, "reals", folder.reals, when(0))
        sent["reals"] = True
        yield


def _measured(row: dict[str, Any], kind: list[Any], before: list[list[Any]]) -> dict[str, float]:
    """'metrics/swd/16': 12.3, ...; a metric measured in another way than at first is named by a hash of the way."""
    name = row["metric"]
    first = next((other[1:] for other in before if other[1] == name), kind)
    if kind != first:
        name += f"-{sha256(json.dumps(kind).encode()).hexdigest()[:6]}"
    return {f"metrics/{name}/{level}".rstrip("/"): value for level, value in row["values"].items()}


def _is_done(folder: RunFolder) -> bool:
    """Whether the final generator is there, as far trained as the config, which may have been lengthened, asks for."""
    config: TrainConfig = read_config(folder, "it was there before")[0]
    return folder.generator.exists() and nimg_of_weights(folder.generator) >= config.schedule.total_nimg


def _plain(value: Any) -> bool | int | float | str:
    """A hyperparameter as trackers take it."""
    if isinstance(value, dict):
        return print_per_resolution(value)
    return value if isinstance(value, bool | int | float | str) else str(value)
