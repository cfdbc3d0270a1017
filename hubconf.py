"""For torch.hub: `g, stage = torch.hub.load(folder_of_progan, "generator", run_or_file, source="local")`."""

from typing import Any

dependencies = ["lazy_loader", "numpy", "PIL", "safetensors", "torch"]


def generator(source: str, *, resolution: int | None = None, alpha: float | None = None) -> tuple[Any, dict[str, Any]]:
    """A trained generator and its stage, as `progan.load_generator` gives them.

    source: a run folder, a .safetensors file, or hf://OWNER/NAME. Images are g(z, **stage).
    """
    from progan import load_generator

    return load_generator(source, resolution=resolution, alpha=alpha)
