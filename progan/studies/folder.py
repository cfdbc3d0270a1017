"""The folder of a study: one folder holds one study, and all its runs have one number format."""

from pathlib import Path
from typing import Any

from progan.run.folder import read_config
from progan.studies.place import HERE, Place
from progan.support.device import Precision, pick_device, pick_precision
from progan.support.errors import RunError, printable
from progan.support.files import make_folder, write_json
from progan.support.json_reader import read_json
from progan.support.plain_files import CONFIG_BYTES
from progan.support.run_files import RunFolder


def prepare_study(out: Path, facts: dict[str, Any]) -> None:
    """Make the folder of a study, or enter that of one with the same facts; RunError says which fact differs."""
    path = out / "study.json"
    if path.exists():
        try:
            before = {"study": facts.get("study"), **read_json(path, dict[str, Any], CONFIG_BYTES)}
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read ({printable(error)}); give --out a new folder") from None
        other = {name: value for name, value in facts.items() if before.get(name) != value}
        if other:
            differ = (
                f"{name} was {printable(before.get(name), 60)} and is now {value}" for name, value in other.items()
            )
            raise RunError(f"{out}: holds another study ({'; '.join(differ)}); give --out a new folder")
        return
    if out.exists() and (not out.is_dir() or any(not entry.name.startswith(".") for entry in out.iterdir())):
        raise RunError(f"{out}: is not empty and holds no study; give --out a new folder")
    make_folder("--out", out)
    write_json(path, facts)


def study_precision(out: Path, device: str, wanted: Precision = "auto", place: Place = HERE) -> Precision:
    """The number format of all runs of a study; for "auto", what its first run began with, or else suits the device.

    So that no table compares one format with another, wherever the study goes on. The GPUs of a cluster, which cannot
    be seen from here, are taken to be of 2020 or later, for which that is bf16.
    """
    if wanted != "auto":
        return wanted
    begun = sorted(path.parent for path in out.rglob("config.json"))
    found = [read_config(RunFolder(run), f"remove {run}")[0].precision for run in begun]
    unseen: Precision = "bf16" if place.on == "slurm" and place.slurm.gpus else "auto"
    return pick_precision(next(iter(found), unseen), pick_device(device))
