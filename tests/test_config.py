"""Configurations survive JSON, and a wrong one is refused by the name of its field."""

import json
from dataclasses import replace
from typing import Any

import pytest

from progan.config import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ScheduleConfig,
    TrainConfig,
)
from progan.presets import PRESETS
from progan.support.config_io import (
    flat_fields,
    from_json,
    parse_per_resolution,
    print_per_resolution,
    to_json,
    value_at,
)
from progan.support.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_json_gives_the_same_configuration_back(name: str) -> None:
    config = PRESETS[name].config
    assert from_json(TrainConfig, json.loads(json.dumps(to_json(config)))) == config


def test_json_keeps_what_was_changed() -> None:
    config = replace(TrainConfig(), schedule=ScheduleConfig(batch={4: 7, 64: 2}, g_lr={4: 1.0, 8: 0.5}), seed=-3)
    again = from_json(TrainConfig, json.loads(json.dumps(to_json(config))))
    assert again.schedule.batch == {4: 7, 64: 2}
    assert again.schedule.g_lr == {4: 1.0, 8: 0.5}
    assert again.seed == -3


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"nothing": 1}, "nothing"),
        ({"g": {"resolutoin": 8}}, "resolutoin"),
        ({"seed": "3"}, "config.seed"),
        ({"seed": 3.5}, "config.seed"),
        ({"mirror": 1}, "config.mirror"),
        ({"g": {"equalized": "yes"}}, "config.g.equalized"),
        ({"g": {"latent_dim": "many"}}, "config.g.latent_dim"),
        ({"g": 5}, "config.g"),
        ({"loss": {"drift": None}}, "config.loss.drift"),
        ({"schedule": {"batch": 16}}, "config.schedule.batch"),
        ({"schedule": {"batch": {"4": "16"}}}, "config.schedule.batch"),
        ({"schedule": {"batch": {"four": 16}}}, "config.schedule.batch"),
        ({"schedule": {"batch": {"4": 1.5}}}, "config.schedule.batch"),
        ([], "config"),
    ],
)
def test_json_with_an_unknown_field_or_a_wrong_type_names_it(values: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        from_json(TrainConfig, values)


@pytest.mark.parametrize("value", [2, 0, -4, 12, 48, 1000])
def test_a_resolution_is_a_power_of_two_from_4_up(value: int) -> None:
    with pytest.raises(ConfigError, match=f"resolution: {value} "):
        GeneratorConfig(resolution=value)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (GeneratorConfig, "channels", 0),
        (GeneratorConfig, "channels", 5),
        (GeneratorConfig, "label_dim", -1),
        (GeneratorConfig, "fmap_base", 0),
        (GeneratorConfig, "fmap_max", 0),
        (GeneratorConfig, "latent_dim", 0),
        (GeneratorConfig, "norm", "instance"),
        (DiscriminatorConfig, "stddev_group", -1),
        (ScheduleConfig, "stable_nimg", -1),
        (ScheduleConfig, "fade_nimg", -1),
        (ScheduleConfig, "total_nimg", 0),
        (ScheduleConfig, "batch", {}),
        (ScheduleConfig, "batch", {8: 16}),
        (ScheduleConfig, "batch", {4: 0}),
        (ScheduleConfig, "batch", {4: 1.5}),
        (ScheduleConfig, "batch", {4: 16, 48: 8}),
        (ScheduleConfig, "g_lr", {4: 0.0}),
        (ScheduleConfig, "g_lr", {4: INF}),
        (ScheduleConfig, "d_lr", {4: -1.0}),
        (ScheduleConfig, "d_lr", {4: NAN}),
        (LossConfig, "gp_weight", -1.0),
        (LossConfig, "gp_weight", NAN),
        (LossConfig, "gp_target", 0.0),
        (LossConfig, "gp_norm_at", "half"),
        (LossConfig, "drift", -1.0),
        (LossConfig, "label_weight", -1.0),
        (TrainConfig, "beta1", 1.0),
        (TrainConfig, "beta2", -0.1),
        (TrainConfig, "beta2", NAN),
        (TrainConfig, "adam_eps", 0.0),
        (TrainConfig, "ema_decay", 1.0),
        (TrainConfig, "d_steps", 0),
        (TrainConfig, "precision", "fp8"),
        (TrainConfig, "tick_nimg", 0),
        (TrainConfig, "snapshot_nimg", 0),
        (TrainConfig, "checkpoint_nimg", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(cls: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        cls(**{field: value})


def test_growing_needs_images() -> None:
    with pytest.raises(ConfigError, match="both are 0"):
        ScheduleConfig(stable_nimg=0, fade_nimg=0)
    assert not ScheduleConfig(growing=False, stable_nimg=0, fade_nimg=0).growing


@pytest.mark.parametrize("fields", [{"resolution": 8}, {"channels": 1}, {"label_dim": 3}])
def test_g_and_d_must_agree(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(ConfigError, match=rf"g\.{name}, d\.{name}"):
        TrainConfig(g=GeneratorConfig(**fields))


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("16", int, {4: 16}),
        ("4:64,32:16", int, {4: 64, 32: 16}),
        ("0.001", float, {4: 0.001}),
        ("4:1e-3,1024:0.0015", float, {4: 0.001, 1024: 0.0015}),
        (" 4:8, 8:4 ", int, {4: 8, 8: 4}),
    ],
)
def test_values_per_resolution_are_read_and_printed(text: str, kind: type, values: dict[int, float]) -> None:
    assert parse_per_resolution(text, kind) == values
    assert parse_per_resolution(print_per_resolution(values), kind) == values


@pytest.mark.parametrize("text", ["", "x", "4:", ":16", "4:16,", "4:1:2", "4:16;8:8", "1.5"])
def test_other_texts_are_no_values_per_resolution(text: str) -> None:
    with pytest.raises(ValueError, match="neither a number nor a list"):
        parse_per_resolution(text, int)


def test_a_value_holds_from_its_resolution_up() -> None:
    values = {4: "a", 32: "b", 128: "c"}
    found = [value_at(values, r) for r in (4, 8, 16, 32, 64, 128, 256, 1024)]
    assert found == ["a", "a", "a", "b", "b", "c", "c", "c"]


def test_feature_maps_of_the_papers_network() -> None:
    config = GeneratorConfig()  # paper, table 2: 4x4 to 1024x1024
    assert config.resolutions == [4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert [config.fmaps_at(r) for r in config.resolutions] == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert config.z_dim == 512
    assert GeneratorConfig(latent_dim=128).z_dim == 128


def test_training_defaults_are_those_of_appendix_a1() -> None:
    config = TrainConfig()
    assert (config.beta1, config.beta2, config.adam_eps) == (0.0, 0.99, 1e-8)
    assert (config.ema_decay, config.d_steps, config.d.stddev_group) == (0.999, 1, 4)
    loss = config.loss
    assert (loss.gp_weight, loss.gp_target, loss.drift, loss.label_weight) == (10.0, 1.0, 0.001, 1.0)


def test_flat_fields_have_dotted_names() -> None:
    fields = dict(flat_fields(TrainConfig(seed=5)))
    assert fields["seed"] == 5
    assert fields["g.resolution"] == 1024
    assert fields["schedule.batch"] == {4: 16}
    assert not {"g", "d", "schedule", "loss"} & set(fields)


@pytest.mark.parametrize("name", PRESETS)
def test_only_the_demo_learns_classes_as_the_paper_never_did(name: str) -> None:
    assert PRESETS[name].config.labels == ("use" if name == "demo" else "ignore")
