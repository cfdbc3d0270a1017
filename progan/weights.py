"""Files of networks: weights and config in one safetensors file, which no reader has to trust."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from progan.config import DiscriminatorConfig, GeneratorConfig
from progan.networks import Discriminator, Generator
from progan.support.config_io import from_json, to_json
from progan.support.errors import ConfigError, RunError
from progan.support.files import DAMAGES, write_whole

NETWORKS: dict[str, tuple[type, Any]] = {
    "generator": (Generator, GeneratorConfig),
    "discriminator": (Discriminator, DiscriminatorConfig),
}


def save_network(path: Path, network: Generator | Discriminator, **facts: Any) -> None:
    """Write weights and config as one safetensors file, whole or not at all; `facts` go into its metadata as JSON."""
    kind = next(name for name, (cls, _) in NETWORKS.items() if isinstance(network, cls))
    write_weights(path, network, {"kind": kind, "config": to_json(network.config), **facts})


def write_weights(path: Path, network: nn.Module, about: Mapping[str, Any]) -> None:
    """Write any module's weights as a safetensors file with `about` as JSON in its metadata, whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    data = safetensors_bytes(tensors, {"progan": json.dumps(about)})
    write_whole(path, lambda file: file.write(data))


def read_weights(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """What write_weights said of the network, None in a file of others, and its tensors; raises any of DAMAGES."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("progan", "null"))
            return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def load_network(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    """Read a network that save_network wrote, and the facts beside it. kind: "generator" or "discriminator".

    Raises RunError when the file is missing, damaged, or something else.
    """
    cls, config_cls = NETWORKS[kind]
    try:
        about, tensors = read_weights(path)
        if not isinstance(about, dict) or about.get("kind") != kind:
            raise RunError(f"{path}: these are not the weights of a progan {kind}")
        network = cls(from_json(config_cls, about.pop("config")))
        network.load_state_dict(tensors)
        network.eval()
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; give the weights of a {kind}") from None
    except (ConfigError, *DAMAGES) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"{path}: cannot be read as the weights of a progan {kind} ({reason})") from None
    return network, about


def read_facts(path: Path) -> dict[str, Any]:
    """What save_network wrote beside the weights, without reading them; {} for a file that is another's."""
    with safe_open(path, framework="numpy") as file:
        about = json.loads((file.metadata() or {}).get("progan", "{}"))
    return about if isinstance(about, dict) else {}


def load_networks(folder: Path) -> dict[str, Any]:
    """g, d and generator (the average) of a folder made by `progan import`; raises RunError if one is missing."""
    kinds = {"g": "generator", "d": "discriminator", "generator": "generator"}
    return {name: load_network(folder / f"{name}.safetensors", kind)[0] for name, kind in kinds.items()}
