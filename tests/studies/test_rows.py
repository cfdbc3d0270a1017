"""The walk along a row's bases, and what stops it."""

import re

import pytest

from progan.config import GeneratorConfig, TrainConfig
from progan.studies.ablation.rows import ROWS, SCALES
from progan.studies.rows import Row, Scale, lr, row_config
from progan.support.errors import ConfigError


def test_a_row_has_what_its_bases_change_and_what_one_scale_does() -> None:
    scales = {name: Scale(TrainConfig(g=GeneratorConfig(fmap_max=size)), 0) for name, size in (("a", 8), ("b", 16))}
    rows = [
        Row("last", "middle", "", {"d_steps": 3}),
        Row("first", None, "", {"d_steps": 5, "beta2": 0.9}, at={"b": lr(0.5)}),
        Row("middle", "first", "", {"beta2": 0.8}, at={"a": {"d_steps": 4}, "b": {"beta2": 0.7}}),
    ]
    for scale, row, d_steps, beta2, rate, size in (
        ("a", rows[0], 3, 0.8, 0.001, 8),
        ("a", rows[1], 5, 0.9, 0.001, 8),
        ("a", rows[2], 4, 0.8, 0.001, 8),
        ("b", rows[0], 3, 0.7, 0.5, 16),
        ("b", rows[2], 5, 0.7, 0.5, 16),
    ):
        config = row_config(row, scale, scales, rows)
        assert (config.d_steps, config.beta2, config.g.fmap_max) == (d_steps, beta2, size)
        assert config.schedule.g_lr == config.schedule.d_lr == {4: rate}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("x", "y", ""), "row x: its base 'y' is missing; use one of a, b,"),
        (Row("x", "x", ""), "row x: its bases lead back to 'x'"),
        (Row("x", "g", "", {"g.colour": 1}), "row x: there is no field 'g.colour'"),
        (Row("x", "g", "", {"colour": 1}), "row x: there is no field 'colour'"),
        (Row("x", "g", "", {"g.norm.type": 1}), "row x: there is no field 'g.norm.type'"),
        (Row("x", "g", "", {"g.norm": "layer"}), "row x: norm: 'layer' is not allowed"),
        (Row("x", "g", "", {"d_steps": "two"}), "row x.d_steps: 'two' is not of type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_that_cannot_be_is_named(row: Row, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        row_config(row, "small", SCALES, [*ROWS, row])
