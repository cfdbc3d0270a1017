"""torch.hub finds the generator in this repository."""

from pathlib import Path

import torch

from progan.weights import save_network
from tests.export.test_plan import trained
from tests.hub_server import Hub

ROOT = Path(__file__).parent.parent


def test_torch_hub_gives_the_generator_and_its_stage(hub: Hub, tmp_path: Path) -> None:
    g, path = trained(), tmp_path / "g.safetensors"
    save_network(path, g, nimg=0, resolution=16, alpha=0.5)
    hub.repositories["some/one"] = [{"generator.safetensors": path.read_bytes()}]
    z = torch.randn(2, g.config.z_dim)
    for source in (str(path), "hf://some/one"):
        loaded, stage = torch.hub.load(str(ROOT), "generator", source, source="local")
        assert stage == {"resolution": 16, "alpha": 0.5}
        assert torch.equal(loaded(z, **stage), g(z, **stage))
    _, stage = torch.hub.load(str(ROOT), "generator", str(path), resolution=8, source="local")
    assert stage == {"resolution": 8, "alpha": 1.0}
