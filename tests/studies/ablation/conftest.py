"""The ablation study at a scale of seconds."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from progan.config import GeneratorConfig
from progan.studies.ablation import step_costs
from progan.studies.ablation.rows import SCALES
from progan.studies.rows import Scale
from tests.conftest import write_data

TINY = Scale(
    replace(
        SCALES["small"].config,
        g=GeneratorConfig(resolution=16, fmap_base=32, fmap_max=8),
        d=replace(SCALES["small"].config.d, resolution=16, fmap_base=32, fmap_max=8),
        schedule=replace(SCALES["small"].config.schedule, stable_nimg=40, fade_nimg=40, total_nimg=240),
        tick_nimg=32,
        snapshot_nimg=60,
        checkpoint_nimg=40,
    ),
    images=32,
    curve_images=32,
)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    return write_data(tmp_path / "faces", count=48).path


@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are timed once, for tests of what becomes of the times."""
    monkeypatch.setattr(step_costs, "measure_costs", partial(step_costs.measure_costs, rounds=1))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, few_directions: None, in_this_process: None, one_round: None) -> None:
    monkeypatch.setitem(SCALES, "small", TINY)
