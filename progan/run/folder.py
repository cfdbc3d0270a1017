"""The folder of a run: what it holds, and the rule that one folder is one config on one data set."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch

from progan.config import TrainConfig
from progan.run.state import checkpoints, lasting_fields, nimg_of
from progan.support.config_io import from_json, to_json
from progan.support.device import pick_device, pick_precision
from progan.support.errors import ConfigError, RunError, printable
from progan.support.files import locked, write_json
from progan.support.json_reader import read_json
from progan.support.plain_files import CONFIG_BYTES
from progan.support.run_files import RunFolder


class _Record(TypedDict):
    """What config.json holds, with "data" and "init" in newer runs."""

    config: dict[str, Any]


@contextmanager
def open_run(
    out: Path,
    config: TrainConfig,
    data_hash: str,
    init: str,
    pick_threads: Callable[[TrainConfig, torch.device], int] = lambda config, device: config.threads,
) -> Iterator[tuple[RunFolder, TrainConfig]]:
    """Make the folder of a new run, or enter that of a run of the same config, data and start; locked meanwhile.

    Gives the folder and the config as it will run: precision "auto" and threads 0 become what the run began with, so
    that a run keeps its bits when it goes on. Raises RunError naming the fields that differ, or when the folder is
    another's or another process is at work in it.
    """
    folder = RunFolder(out)
    if folder.config.exists():
        config = _continued(folder, config, data_hash, init)
    elif out.exists() and (not out.is_dir() or any(not entry.name.startswith(".") for entry in out.iterdir())):
        raise RunError(f"{out}: is not empty and holds no run; give --out a new folder")
    device = pick_device(config.device)
    config = replace(config, precision=pick_precision(config.precision, device))
    with locked(out, "progan train"):
        config = replace(config, threads=pick_threads(config, device))
        for half in out.rglob(".*.partial"):  # what a killed process was writing
            half.unlink()
        write_json(folder.config, {"config": to_json(config), "data": data_hash, "init": init})
        folder.checkpoints.mkdir(exist_ok=True)
        folder.snapshots.mkdir(exist_ok=True)
        yield folder, config


def read_config(folder: RunFolder, advice: str) -> tuple[TrainConfig, dict[str, Any]]:
    """The config of a run, and what one run never changes: fields by dotted name, "data" and "init".

    Raises RunError ending with `advice` when there is none or it cannot be read.
    """
    try:
        record: dict[str, Any] = {**read_json(folder.config, _Record, CONFIG_BYTES)}
        config = from_json(TrainConfig, record["config"])
    except FileNotFoundError:
        raise RunError(f"{folder.path}: holds no run of progan train; {advice}") from None
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise RunError(f"{folder.config}: cannot be read ({printable(error)}); {advice}") from None
    return config, _kept(config, record.get("data"), record.get("init"))


def _kept(config: TrainConfig, data_hash: Any, init: Any) -> dict[str, Any]:
    return lasting_fields(config) | {"data": data_hash, "init": init}


def _continued(folder: RunFolder, config: TrainConfig, data_hash: str, init: str) -> TrainConfig:
    """The config to go on with, or RunError naming what differs from the run's own."""
    before, old = read_config(folder, "give --out a new folder")
    if config.precision == "auto":
        config = replace(config, precision=before.precision)
    config = replace(config, threads=config.threads or before.threads)
    differ = [
        f"{name} was {printable(old[name], 60)} and is now {value}"
        for name, value in _kept(config, data_hash, init).items()
        if old[name] != value
    ]
    if config.schedule.total_nimg < before.schedule.total_nimg:
        saved = checkpoints(folder.checkpoints)
        nimg = nimg_of(saved[-1]) if saved else 0
        if nimg > config.schedule.total_nimg:
            raise RunError(
                f"{folder.path}: the run is at {nimg / 1000:g} kimg already, beyond --total-kimg"
                f" {config.schedule.total_nimg / 1000:g}; pass --total-kimg {nimg / 1000:g} or more, or a new --out"
            )
    if differ:
        raise RunError(f"{folder.path}: holds a run of another config ({'; '.join(differ)}); give --out a new folder")
    return config
