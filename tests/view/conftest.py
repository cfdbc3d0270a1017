"""A folder with two runs, their data and a study, and a viewer on it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from progan.config import TrainConfig
from progan.images import write_png
from progan.presets import PRESETS
from progan.support.files import write_json
from progan.training import fit_to_data, train
from tests.conftest import write_data


def small_config(**fields: Any) -> TrainConfig:
    """The demo's preset at 16x16, in a few steps."""
    demo = PRESETS["demo"].config
    shape = {"resolution": 16, "fmap_base": 32, "fmap_max": 16}
    schedule = replace(demo.schedule, stable_nimg=16, fade_nimg=16, total_nimg=96, batch={4: 4})
    networks = {"g": replace(demo.g, **shape), "d": replace(demo.d, **shape)}  # type: ignore[arg-type]
    every = {"tick_nimg": 8, "snapshot_nimg": 16, "checkpoint_nimg": 16, "device": "cpu", "precision": "fp32"}
    return replace(demo, schedule=schedule, **networks, **{**every, **fields})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, runs/one, runs/two with labels, and a study; only to be read."""
    root = tmp_path_factory.mktemp("viewed")
    data = write_data(root / "data", count=40, labels=3)
    measured = {"metrics": "ms_ssim", "metrics_nimg": 48, "metrics_images": 16}
    train(fit_to_data(small_config(labels="ignore", **measured), data), data, root / "runs" / "one")
    train(fit_to_data(small_config(seed=1, beta2=0.9), data), data, root / "runs" / "two")
    study = root / "study"
    study.mkdir()
    write_json(study / "study.json", {"study": "ablation", "scale": "small"})
    (study / "table.md").write_text("# Table\n\n| row | SWD |\n| --- | ---: |\n| **a** | 12.5 ± 0.2 |\n")
    write_png(study / "grid.png", Image.new("RGB", (8, 8), "red"))
    return root


@contextmanager
def viewing(folder: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A viewer in a process of its own: its address, and the process."""
    command = [sys.executable, "-u", "-m", "progan", "view", str(folder), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.stderr and process.stderr.read()
        yield address, process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where the viewer of `folder` answers."""
    with viewing(folder) as (found, _):
        yield found


def lines(path: Path) -> list[dict[str, Any]]:
    """Of a .jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
