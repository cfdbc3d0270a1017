"""The commands of a report make the run that it is about."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from progan.cli import _parsed
from progan.commands.train import Train
from progan.config import TrainConfig
from progan.presets import PRESETS
from progan.support.config_io import overridden
from progan.view.reproduce import evaluate_commands, train_command
from progan.view.runs import nearest_preset

CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "plain flags": {
        "g.resolution": 64, "d.resolution": 64, "schedule.total_nimg": 12_345_678, "schedule.stable_nimg": 96,
        "schedule.batch": {"4": 8, "64": 4}, "schedule.g_lr": {"4": 0.0015}, "schedule.d_lr": {"4": 0.0015},
        "keep_every_nimg": 1, "metrics": "swd", "mirror": True, "precision": "bf16",
    },
    "the others": {
        "schedule.growing": False, "schedule.g_lr": {"4": 1e-05, "16": 0.1}, "g.latent_dim": 7, "g.equalized": False,
        "d.norm": "layer", "loss.kind": "lsgan", "loss.gp_weight": 1e-09, "micro_batch": {"4": 0, "16": 2}, "seed": 3,
        "labels": "ignore", "device": "cpu", "adam_eps": 1e-12,
    },
    "none in place of some": {"g.latent_dim": None, "metrics": ""},
}  # fmt: skip


def parsed(command: str) -> Train:
    progan, *words = shlex.split(command)
    assert progan == "progan"
    train = _parsed(words)
    assert isinstance(train, Train)
    return train


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_command_gives_the_config(changes: dict[str, Any], preset: str) -> None:
    config = overridden(PRESETS[preset].config, changes, "test")
    nearest, _ = nearest_preset(config)
    train = parsed(train_command(config, nearest, data="my data", out="run; rm -rf"))
    assert train.settled() == config
    assert (train.data, train.out) == (Path("my data"), Path("run; rm -rf"))


def test_an_unchanged_preset_needs_no_flag() -> None:
    command = train_command(PRESETS["demo"].config, "demo", data="DATA", out="run")
    assert command == "progan train --preset demo --data DATA --out run"


def test_what_the_data_set_decides_is_no_flag() -> None:
    shape = {"channels": 1, "label_dim": 10}
    config = PRESETS["demo"].config
    config = replace(config, g=replace(config.g, **shape), d=replace(config.d, **shape))  # type: ignore[arg-type]
    assert "label" not in train_command(config, "demo", data="DATA", out="run")


def config_of_branch(monkeypatch: pytest.MonkeyPatch, config: TrainConfig) -> None:
    monkeypatch.setattr("progan.run.folder.read_config", lambda *_: (config, {}))


def test_a_branch_gives_the_config_whatever_its_run_had(monkeypatch: pytest.MonkeyPatch) -> None:
    config = overridden(PRESETS["demo"].config, CHANGES["the others"], "test")
    config_of_branch(monkeypatch, overridden(PRESETS["cifar10"].config, {"mirror": True, "d_steps": 2}, "test"))
    init = "branch of old run/checkpoints/checkpoint-000008500.pt"
    train = parsed(train_command(config, "demo", data="DATA", out="run", init=init))
    assert train.settled() == config
    assert (train.branch, train.from_kimg) == (Path("old run"), 8.5)


@pytest.mark.parametrize(("init", "kimg"), [("old", None), ("old at 8000", 8.0)])
def test_what_it_started_from(init: str, kimg: float | None) -> None:
    config = overridden(PRESETS["demo"].config, {"g.fmap_max": 5, "d.fmap_max": 5, "seed": 3}, "test")
    train = parsed(train_command(config, "demo", data="DATA", out="run", init=init))
    assert (train.init, train.from_kimg, train.resolution) == (Path("old"), kimg, 32)
    assert train.settled() == replace(PRESETS["demo"].config, seed=3)  # the networks are those of that run


def test_metrics_that_the_run_did_not_measure_itself() -> None:
    config = replace(PRESETS["demo"].config, metrics="ms_ssim")
    metrics = [
        {"metric": "swd", "images": 4096, "nimg": [1, 2]},
        {"metric": "ms_ssim", "images": 4096, "nimg": [1, 2]},
        {"metric": "fid", "images": 4096, "nimg": [1, 2]},
        {"metric": "neighbours", "images": 1000, "nimg": [2]},
    ]
    assert evaluate_commands(metrics, config, data="DATA", out="run") == [
        "progan evaluate run --data DATA --metrics swd,fid --images 4096 --all-snapshots",
        "progan evaluate run --data DATA --metrics neighbours --images 1000",
    ]
