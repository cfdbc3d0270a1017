"""The folder of a run: what it holds, and the rule that one folder is one config on one data set."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from progan.config import TrainConfig
from progan.run.state import checkpoints
from progan.support.config_io import flat_fields, from_json, to_json
from progan.support.device import pick_device, pick_precision
from progan.support.errors import ConfigError, RunError
from progan.support.files import write_json
from progan.support.run_files import RunFolder

try:
    import fcntl
except ImportError:  # Windows locks nothing here
    fcntl = None  # type: ignore[assignment]

# What may change between two parts of one run: how far it goes and what it writes down, never what it computes,
# but for rounding.
FREE_FIELDS = (
    "schedule.total_nimg",
    "device",
    "micro_batch",
    "snapshot_nimg",
    "checkpoint_nimg",
    "metrics",
    "metrics_nimg",
    "metrics_images",
)


@contextmanager
def open_run(out: Path, config: TrainConfig, data_hash: str, init: str) -> Iterator[tuple[RunFolder, TrainConfig]]:
    """Make the folder of a new run, or enter that of a run of the same config, data and start; locked meanwhile.

    Gives the folder and the config as it will run: precision "auto" becomes what the run began with, so that a run
    keeps its number format wherever it goes on. Raises RunError naming the fields that differ, or when the folder is
    another's or another process is at work in it.
    """
    folder = RunFolder(out)
    if folder.config.exists():
        config = _continued(folder.config, config, data_hash, init)
    elif out.exists() and (not out.is_dir() or any(not entry.name.startswith(".") for entry in out.iterdir())):
        raise RunError(f"{out}: is not empty and holds no run; give --out a new folder")
    config = replace(config, precision=pick_precision(config.precision, pick_device(config.device)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror}); give --out another folder") from None
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"{out}: another progan train is at work here; wait for it or stop it") from None
        for half in out.rglob(".*.partial"):  # what a killed process was writing
            half.unlink()
        write_json(folder.config, {"config": to_json(config), "data": data_hash, "init": init})
        folder.checkpoints.mkdir(exist_ok=True)
        folder.snapshots.mkdir(exist_ok=True)
        yield folder, config


def _continued(path: Path, config: TrainConfig, data_hash: str, init: str) -> TrainConfig:
    """The config to go on with, or RunError naming what differs from the run's own."""
    try:
        record = json.loads(path.read_text())
        before = from_json(TrainConfig, record["config"])
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise RunError(f"{path}: cannot be read ({error}); give --out a new folder") from None
    if config.precision == "auto":
        config = replace(config, precision=before.precision)
    old = dict(flat_fields(before)) | {"data": record.get("data"), "init": record.get("init")}
    new = dict(flat_fields(config)) | {"data": data_hash, "init": init}
    differ = [
        f"{name} was {old[name]} and is now {value}"
        for name, value in new.items()
        if old[name] != value and name not in FREE_FIELDS
    ]
    if config.schedule.total_nimg < before.schedule.total_nimg:
        saved = checkpoints(path.parent / "checkpoints")
        nimg = int(saved[-1].stem.rpartition("-")[2]) if saved else 0
        if nimg > config.schedule.total_nimg:
            raise RunError(
                f"{path.parent}: the run is at {nimg / 1000:g} kimg already, beyond --total-kimg"
                f" {config.schedule.total_nimg / 1000:g}; pass --total-kimg {nimg / 1000:g} or more, or a new --out"
            )
    if differ:
        raise RunError(f"{path.parent}: holds a run of another config ({'; '.join(differ)}); give --out a new folder")
    return config
