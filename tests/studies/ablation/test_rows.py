"""Table 1 as data: what each row changes, its networks, rows of one's own (section 6.1)."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from progan.config import TrainConfig
from progan.layers import LayerNorm
from progan.networks import Discriminator, Generator, parameter_count
from progan.studies.ablation.rows import ROWS, SCALES, TABLE_1, chosen_rows, read_rows
from progan.studies.rows import row_config
from progan.support.config_io import flat_fields
from progan.support.errors import ConfigError

BY_NAME = {row.name: row for row in ROWS}


def config_of(name: str, scale: str) -> TrainConfig:
    return row_config(BY_NAME[name], scale, SCALES, ROWS)


def networks(config: TrainConfig) -> tuple[Generator, Discriminator]:
    with torch.device("meta"):
        return Generator(config.g), Discriminator(config.d)


# ---------------------------------------------------------------------------------------------------------------------
# The rows

# What a row changes of its base, at the paper's scale (REFERENCE: the Theano configuration of table 1).
CHANGES: dict[str, dict[str, Any]] = {
    "b": {"schedule.growing": True},
    "c": {"schedule.batch": {4: 16}, "ema_decay": 0.999},
    "d": {
        "d_steps": 1,
        "beta2": 0.99,
        "loss.drift": 0.001,
        "g.latent_dim": None,
        "g.normalize_latent": True,
        "g.norm": "none",
        "g.activation": "leaky",
        "g.output": "linear",
        "d.norm": "none",
    },
    "e*": {"d.minibatch_kernels": 100},
    "e": {"d.stddev_group": 1_000_000},
    "f": {"g.equalized": True, "d.equalized": True, "schedule.g_lr": {4: 0.001}, "schedule.d_lr": {4: 0.001}},
    "g": {"g.norm": "pixel"},
    "h": {"g.fmap_base": 8192, "d.fmap_base": 8192, "schedule.total_nimg": 19_000_000},
    "g-ungrown": {"schedule.growing": False},
    "g-lsgan": {"loss.kind": "lsgan"},
    "g-lsgan-ungrown": {"schedule.growing": False},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_row_changes_its_own_thing_of_its_base(name: str) -> None:
    row = BY_NAME[name]
    assert row.base is not None
    old, new = (dict(flat_fields(config_of(one, "paper"))) for one in (row.base, name))
    assert {field: value for field, value in new.items() if value != old[field]} == CHANGES[name]


def test_the_first_row_is_gulrajanis_baseline() -> None:
    a = config_of("a", "paper")
    assert (a.d_steps, a.beta1, a.beta2, a.schedule.batch, a.schedule.g_lr) == (5, 0.0, 0.9, {4: 64}, {4: 1e-4})
    assert (a.g.latent_dim, a.g.normalize_latent, a.g.activation, a.g.norm, a.g.output) == (
        128,
        False,
        "relu",
        "batch",
        "tanh",
    )
    assert (a.d.norm, a.d.stddev_group, a.d.minibatch_kernels, a.d.fused_scaling) == ("layer", 0, 0, False)
    assert (a.g.equalized, a.d.equalized, a.schedule.growing) == (False, False, False)
    assert (a.loss.drift, a.loss.gp_weight, a.loss.kind) == (0.0, 10.0, "wgan-gp")
    assert a.ema_decay**5 == pytest.approx(0.999**20)  # per step of G, of which there is one in five
    assert (a.g.resolution, a.g.fmap_base, a.schedule.stable_nimg, a.schedule.fade_nimg, a.schedule.total_nimg) == (
        128,
        2048,
        800_000,
        800_000,
        10_000_000,
    )


def test_the_table_has_the_papers_nine_rows_in_its_order() -> None:
    assert [row.name for row in ROWS][:9] == list(TABLE_1)
    assert {row.name: row.base for row in ROWS if row.name in TABLE_1} == {
        "a": None, "b": "a", "c": "b", "d": "c", "e*": "d", "e": "d", "f": "e", "g": "f", "h": "g",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(BY_NAME))
def test_the_small_scale_changes_sizes_alone(name: str) -> None:
    sizes = {"g.latent_dim", "d.minibatch_kernels", "ema_decay"}
    sizes |= {f"{network}.{field}" for network in "gd" for field in ("resolution", "fmap_base", "fmap_max")}
    sizes |= {f"schedule.{field}" for field in ("stable_nimg", "fade_nimg", "total_nimg", "batch", "g_lr", "d_lr")}
    sizes |= {"d.fused_scaling", "loss.gp_norm_at", "snapshot_nimg", "checkpoint_nimg"}
    paper, small = (dict(flat_fields(config_of(name, scale))) for scale in ("paper", "small"))
    assert {field for field in paper if paper[field] != small[field]} <= sizes
    for rates in ("schedule.g_lr", "schedule.d_lr"):  # row f raises it tenfold at both
        assert small[rates][4] / paper[rates][4] == pytest.approx(6)


# ---------------------------------------------------------------------------------------------------------------------
# Their networks


def wanted_parameters(config: TrainConfig) -> tuple[int, int]:
    """By hand from the paper's table 2 and the fields of the row."""
    g, d = config.g, config.d

    def maps(resolution: int) -> int:
        return min(g.fmap_base // (resolution // 2), g.fmap_max)

    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2

    latent = min(g.fmap_base, g.fmap_max) if g.latent_dim is None else g.latent_dim
    after = 2 if g.norm == "batch" else 1  # per map: scale and bias, or the bias alone
    of_g = conv(latent, maps(4) * 16, 1) + conv(maps(4), maps(4), 3) + 2 * after * maps(4)
    last = min(d.fmap_base, d.fmap_max)
    extra = (d.stddev_group > 0) + d.minibatch_kernels
    gain = d.norm == "layer"  # one number per layer
    of_d = conv(maps(4) + extra, maps(4), 3) + maps(4) + gain
    of_d += conv(maps(4) * 16, last, 1) + last + gain + last + 1
    of_d += maps(4) * 16 * d.minibatch_kernels * d.minibatch_dims
    for resolution in (2**i for i in range(2, g.resolution.bit_length())):
        of_g += 3 * maps(resolution) + 3
        of_d += 3 * maps(resolution) + maps(resolution)
        if resolution > 4:
            below = maps(resolution // 2)
            of_g += conv(below, maps(resolution), 3) + conv(maps(resolution), maps(resolution), 3)
            of_g += 2 * after * maps(resolution)
            of_d += conv(maps(resolution), maps(resolution), 3) + maps(resolution) + gain
            of_d += conv(maps(resolution), below, 3) + below + gain
    return of_g, of_d


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", list(BY_NAME))
def test_parameter_counts_follow_from_the_row(name: str, scale: str) -> None:
    config = config_of(name, scale)
    assert tuple(map(parameter_count, networks(config))) == wanted_parameters(config)


def test_row_g_at_the_papers_scale_has_the_official_counts() -> None:
    # Official TensorFlow code, fmap_base 2048, 128x128.
    assert tuple(map(parameter_count, networks(config_of("g", "paper")))) == (13_629_810, 13_636_897)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_norms_are_in_rows_a_to_c_and_nowhere_else(name: str) -> None:
    g, d = networks(config_of(name, "paper"))
    batch = sum(isinstance(module, nn.BatchNorm2d) for module in g.modules())
    layer = sum(isinstance(module, LayerNorm) for module in d.modules())
    assert (batch, layer) == ((12, 12) if name in "abc" else (0, 0))
    assert not any(isinstance(module, LayerNorm) for module in g.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in d.modules())


# ---------------------------------------------------------------------------------------------------------------------
# Choosing rows, and rows of one's own


def test_rows_are_chosen_by_name() -> None:
    assert [row.name for row in chosen_rows("g, e*,g")] == ["g", "e*"]
    assert len(chosen_rows("all")) == len(ROWS)


@pytest.mark.parametrize(("names", "said"), [("a,z", "z not known; use some of a, b,"), (" ,", "none not known")])
def test_an_unknown_row_is_named(names: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--rows: {said}")):
        chosen_rows(names)


def test_a_row_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    row = {"name": "no-drift", "base": "g", "title": "g, no drift", "overrides": {"loss.drift": 0.0}}
    path.write_text(json.dumps([row]))
    (own,) = read_rows(path)
    assert row_config(own, "small", SCALES, [*ROWS, own]) == replace(
        config_of("g", "small"), loss=replace(config_of("g", "small").loss, drift=0.0)
    )


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"name": "x"}]', '[{"name": "a", "base": "g", "title": "", "overrides": {}}]']
)
def test_a_file_of_anything_else_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_rows(path)
