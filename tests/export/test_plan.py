"""The plain twin of a generator: the same images at every stage, for every variant of the network."""

from typing import Any

import pytest
import torch
from torch import nn

from progan.config import GeneratorConfig
from progan.export.plan import Activation, Conv, Dense, PixelNorm, ToRgb, UpConv, blend, plan, run_plan, weight_count
from progan.networks import Generator
from progan.studies.ablation.rows import ROWS, SCALES
from progan.studies.rows import row_config
from progan.support.errors import ConfigError

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "batch norm": {"norm": "batch", "activation": "relu", "output": "tanh", "equalized": False},
    "batch norm, equalized": {"norm": "batch", "fused_scaling": False},
    "no norm": {"norm": "none"},
    "relu": {"activation": "relu"},
    "tanh": {"output": "tanh"},
    "not fused": {"fused_scaling": False},
    "not equalized": {"equalized": False},
    "latent as it is": {"normalize_latent": False},
    "latent of 5": {"latent_dim": 5},
    "labels": {"label_dim": 3},
    "labels, latent as it is": {"label_dim": 3, "normalize_latent": False, "latent_dim": 7},
    "gray": {"channels": 1},
    "gray and alpha": {"channels": 2},
    "four channels": {"channels": 4},
    "odd widths": {"fmap_base": 150, "fmap_max": 13},
}


def trained(**fields: Any) -> Generator:
    """A generator whose every number is random, so that nothing is folded in vain; running statistics too.

    Not too narrow: where a pixel's few maps are all near 0, its normalisation enlarges the rounding of any float32.
    """
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(**{"resolution": 32, "fmap_base": 256, "fmap_max": 24, **fields}))
    for name, value in g.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(value, std=0.3)
    for norm in g.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            nn.init.normal_(norm.running_mean, std=0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return g.eval().requires_grad_(False)


def inputs(g: Generator, count: int = 3) -> tuple[torch.Tensor, torch.Tensor | None]:
    labels = torch.eye(g.config.label_dim)[torch.arange(count) % g.config.label_dim] if g.config.label_dim else None
    return torch.randn(count, g.config.z_dim), labels


def assert_equal_at_every_stage(g: Generator) -> None:
    z, labels = inputs(g)
    p = plan(g)
    outputs = run_plan(p, z, labels)
    assert list(outputs) == p.resolutions == g.config.resolutions
    for resolution in g.config.resolutions:
        for alpha in (0.0, 0.3, 0.5, 1.0):
            expected = g(z, labels, resolution=resolution, alpha=alpha)
            assert expected.std() > 0.05
            assert (blend(p, outputs, resolution, alpha) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_the_plan_is_the_network_at_every_stage(fields: dict[str, Any]) -> None:
    assert_equal_at_every_stage(trained(**fields))


@pytest.mark.parametrize("name", sorted({row.name for row in ROWS}))
def test_the_plan_is_the_network_of_every_row_of_the_ablation(name: str) -> None:
    row = next(row for row in ROWS if row.name == name)
    config = row_config(row, "small", SCALES, ROWS).g
    torch.manual_seed(0)
    assert_equal_at_every_stage(Generator(config).eval().requires_grad_(False))


def test_a_plan_holds_plain_operations_alone() -> None:
    g = trained(norm="batch", activation="relu")
    kinds = [type(op) for op in plan(g).operations]
    block = [Activation, Conv, Activation, ToRgb]
    assert kinds == [PixelNorm, Dense, *block, *([UpConv, *block] * 3)]
    assert {op.slope for op in plan(g).operations if isinstance(op, Activation)} == {0.0}


def test_a_plan_ends_where_it_is_told_to() -> None:
    g = trained()
    z, _ = inputs(g)
    short, whole = plan(g, 8), plan(g)
    assert short.resolutions == [4, 8]
    assert weight_count(short) < weight_count(whole)
    assert torch.equal(run_plan(short, z)[8], run_plan(whole, z)[8])
    with pytest.raises(ConfigError, match="12 is not one of 4, 8, 16, 32"):
        plan(g, 12)


def test_a_plan_shares_no_memory_with_the_network() -> None:
    g = trained(equalized=False)
    z, _ = inputs(g)
    p = plan(g)
    before = run_plan(p, z)[32]
    for value in g.parameters():
        value.zero_()
    assert torch.equal(run_plan(p, z)[32], before)
