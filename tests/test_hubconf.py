"""torch.hub finds the generator in this repository."""

from pathlib import Path

import torch

from progan.weights import save_network
from tests.export.test_plan import trained

ROOT = Path(__file__).parent.parent


def test_torch_hub_gives_the_generator_and_its_stage(tmp_path: Path) -> None:
    g, path = trained(), tmp_path / "g.safetensors"
    save_network(path, g, nimg=0, resolution=16, alpha=0.5)
    loaded, stage = torch.hub.load(str(ROOT), "generator", str(path), source="local")
    assert stage == {"resolution": 16, "alpha": 0.5}
    z = torch.randn(2, g.config.z_dim)
    assert torch.equal(loaded(z, **stage), g(z, **stage))
