"""Files of networks: weights and config in one safetensors file, which no reader has to trust."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from progan.config import DiscriminatorConfig, GeneratorConfig
from progan.networks import Discriminator, Generator
from progan.support.config_io import from_json, to_json
from progan.support.errors import RunError, printable
from progan.support.files import write_whole
from progan.support.json_reader import parse_json
from progan.support.plain_files import check_plain

NETWORKS: dict[str, tuple[type, Any]] = {
    "generator": (Generator, GeneratorConfig),
    "discriminator": (Discriminator, DiscriminatorConfig),
}


class _Data(TypedDict):
    """What weights say of the data they learned from; `ImagePyramid.about` writes it."""

    hash: str
    count: NotRequired[int | None]
    label_names: NotRequired[list[str] | None]
    source: NotRequired[dict[str, Any] | None]
    attribution: NotRequired[dict[str, Any] | None]


class _About(TypedDict):
    """What stands in a file beside the weights; other facts are free."""

    kind: str
    config: dict[str, Any]
    nimg: NotRequired[int | None]
    resolution: NotRequired[int]
    alpha: NotRequired[float]
    data: NotRequired[_Data | None]


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
    """What write_weights said of the network, {} in a file of others, and its tensors; any error of a damaged file."""
    check_plain(path)
    with safe_open(path, framework="pt") as file:
        about = parse_json((file.metadata() or {}).get("progan", "{}"), dict[str, Any])
        return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def load_network(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    """Read a network that save_network wrote, and the facts beside it. kind: "generator" or "discriminator".

    Raises RunError when the file is missing, damaged, or something else.
    """
    cls, config_cls = NETWORKS[kind]
    try:
        check_plain(path)
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("progan", "{}")
            if parse_json(text, dict[str, Any]).get("kind") != kind:
                raise RunError(f"{path}: these are not the weights of a progan {kind}")
            about: dict[str, Any] = {**parse_json(text, _About)}
            config = from_json(config_cls, about.pop("config"))
            _check_stage(config, about)
            _check_shapes(cls, config, {name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = cls(config)
        network.load_state_dict(tensors)
        network.eval()
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise RunError(f"{path}: holds weights that are not finite; give those of before the training diverged")
    except RunError:
        raise
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; give the weights of a {kind}") from None
    except Exception as error:  # a damaged file raises almost anything
        raise RunError(f"{path}: cannot be read as the weights of a progan {kind} ({printable(error)})") from None
    return network, about


def _check_stage(config: Any, about: dict[str, Any]) -> None:
    if about.get("resolution", config.resolution) not in config.resolutions:
        raise ValueError(f"resolution {about['resolution']} is none of the network's")
    if not 0 <= about.get("alpha", 1.0) <= 1:
        raise ValueError(f"alpha {about['alpha']} is not between 0 and 1")


def _check_shapes(cls: type, config: Any, found: dict[str, list[int]]) -> None:
    """Raise ValueError unless a network of this configuration has tensors of these shapes; none is made."""
    with torch.device("meta"):
        wanted = {name: list(tensor.shape) for name, tensor in cls(config).state_dict().items()}
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            asks, holds = wanted.get(name, "no such tensor"), found.get(name, "none")
            raise ValueError(f"its configuration asks for {asks} at {printable(name)}, the file holds {holds}")


def load_networks(folder: Path) -> dict[str, Any]:
    """g, d and generator (the average) of a folder made by `progan import`; raises RunError if one is missing."""
    kinds = {"g": "generator", "d": "discriminator", "generator": "generator"}
    return {name: load_network(folder / f"{name}.safetensors", kind)[0] for name, kind in kinds.items()}
