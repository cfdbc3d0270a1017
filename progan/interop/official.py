"""Snapshots of the official TensorFlow code, read without TensorFlow and without running anything from the file.

A snapshot is a pickle of three networks (G, D, Gs), Gs being the moving average of G. A pickle is a program: this
reader writes down the few calls that an honest snapshot makes, refuses every other name, and builds the arrays itself.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from progan.config import DiscriminatorConfig, GeneratorConfig
from progan.networks import Discriminator, Generator
from progan.support.errors import ConfigError, RunError, printable
from progan.support.inert_pickle import Call, InertPickle, as_array
from progan.support.plain_files import open_plain

N = TypeVar("N", Generator, Discriminator)

_NETWORK, _SCALAR = "tfutil.Network", "numpy.core.multiarray.scalar"
_PICKLE = InertPickle(
    error=RunError,
    refused="no official snapshot needs; nothing in the file was executed",
    damaged="is cut short or damaged ({}); fetch or copy it again",
    strings="latin1",
    also=(_NETWORK, _SCALAR, "numpy.core.numeric._frombuffer"),
)


@dataclass(frozen=True)
class OfficialSnapshot:
    """What one official snapshot holds: float32 networks on the CPU, and where its training stood."""

    g: Generator
    """The generator in training."""
    d: Discriminator
    """The discriminator."""
    gs: Generator
    """The moving average of g: the one to make images with."""
    lod: float
    """Level of detail, 0 to log2(resolution / 4): resolution / 2^floor(lod) at work, alpha = 1 - frac(lod)."""


def read(path: Path | str) -> OfficialSnapshot:
    """Read an official snapshot, such as karras2018iclr-celebahq-1024x1024.pkl (also from Python 2 or old NumPy).

    The network's source code inside the file is never looked at, and no random number is drawn. Raises RunError in one
    sentence where the file is no such snapshot, asks for anything but arrays, or has a network that this project lacks.
    """
    path = Path(path)
    content = _content(path)
    networks = content if isinstance(content, tuple) else ()
    if len(networks) != 3 or not all(_is_call(network, _NETWORK) for network in networks):
        raise RunError(f"{path}: holds no tuple of the three networks (G, D, Gs), so it is not an official snapshot")
    g_record, d_record, gs_record = (
        _record(network, f"{path}: {name}", kind)
        for network, name, kind in zip(networks, ("G", "D", "Gs"), ("G_paper", "D_paper", "G_paper"), strict=True)
    )
    try:
        d = _filled(Discriminator, _discriminator_config(d_record), d_record)
        g = _filled(Generator, _generator_config(g_record, d.config.label_dim), g_record)
        gs = _filled(Generator, _generator_config(gs_record, d.config.label_dim), gs_record)
    except ConfigError as error:
        raise RunError(f"{path}: asks for a network that cannot be built ({error})") from error
    for name in ("resolution", "channels", "label_dim"):
        values = [getattr(network.config, name) for network in (g, d, gs)]
        if len(set(values)) > 1:
            raise RunError(f"{path}: G, D and Gs disagree on {name}: {', '.join(map(str, values))}")
    if g.config != gs.config:
        raise RunError(f"{path}: Gs is not the moving average of G, for it is a different network")
    return OfficialSnapshot(g, d, gs, _lod(g_record, g.config.resolution))


def official_name(parameter: str, network: Generator | Discriminator) -> str:
    """The official variable of one of our parameters: 'blocks.8.conv0.weight' of a fused G is '8x8/Conv0_up/weight'."""
    layer, kind = parameter.rsplit(".", 1)
    match layer.split("."):
        case ["to_rgb", resolution]:
            name = f"ToRGB_lod{(network.config.resolution // int(resolution)).bit_length() - 1}"
        case ["from_rgb", resolution]:
            name = f"FromRGB_lod{(network.config.resolution // int(resolution)).bit_length() - 1}"
        case ["head", name]:
            name = f"4x4/{name.capitalize()}"
        case ["blocks", "4", name]:
            name = {"dense": "4x4/Dense", "conv1": "4x4/Conv"}[name]
        case ["blocks", resolution, name]:
            resampled, suffix = ("conv0", "_up") if isinstance(network, Generator) else ("conv1", "_down")
            suffix = suffix if name == resampled and network.config.fused_scaling else ""
            name = f"{resolution}x{resolution}/{name.capitalize()}{suffix}"
        case _:
            raise KeyError(parameter)
    return f"{name}/{kind}"


def import_array(name: str, array: np.ndarray) -> Tensor:
    """An official variable, or its gradient, in our layout: a float32 copy.

    [kh, kw, in, out] -> [out, in, kh, kw]; [in, out] -> [out, in]; a fused Conv0_up, [kh, kw, out, in], also by half a
    turn: the official code feeds it to a transposed convolution, which walks its kernel backwards, while ours is the
    plain convolution after the upsampling. Values stay: both sides scale the weights of equalized layers at run time.
    """
    if array.ndim == 4 and name.endswith("/Conv0_up/weight"):
        array = array.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]
    elif array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif array.ndim == 2:
        array = array.T
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _content(path: Path) -> Any:
    """The value of the pickle, every call in it written down and none made."""
    try:
        with open_plain(path) as file:
            start = file.read(2)
            file.seek(0)
            # Older protocols have no mark to know them by, and the official code never wrote them.
            if start[:1] != b"\x80":
                kind = "a zip archive (torch.save writes such)" if start == b"PK" else "no pickle of protocol 2 or up"
                raise RunError(f"{path}: is {kind}, so it is not an official snapshot; pass the .pkl file itself")
            return _PICKLE.load(file, path)
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file; pass an official snapshot (.pkl)") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({printable(error)})") from error


def _is_call(value: Any, name: str) -> bool:
    return isinstance(value, Call) and value.name == name


def _array(value: Any, where: str) -> np.ndarray:
    try:
        return as_array(value, ("f2", "f4", "f8", "i4", "i8", "b1"))
    except ValueError as error:
        raise RunError(f"{where} {error}") from error


@dataclass(frozen=True)
class _Record:
    where: str
    """File and network, for messages."""
    settings: dict[str, Any]
    """The official static_kwargs."""
    variables: dict[str, np.ndarray]

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a variable that the configuration depends on."""
        if name not in self.variables:
            raise RunError(f"{self.where} has no variable {name}")
        shape = self.variables[name].shape
        if len(shape) != dimensions:
            raise RunError(f"{self.where}: {name} has shape {list(shape)}; it should have {dimensions} dimensions")
        return shape

    def number(self, name: str, default: int) -> int:
        """A setting that is a whole number; the default where the file is silent."""
        value = self.settings.get(name)
        if value is None:
            return default
        if type(value) is not int or not 0 <= value < 2**20:
            raise RunError(f"{self.where}: {name} is no whole number from 0 to {2**20 - 1}")
        return value

    def switch(self, name: str, default: bool) -> bool:
        """A setting that is on or off; the default where the file is silent."""
        value = self.settings.get(name, default)
        if not isinstance(value, bool):
            raise RunError(f"{self.where}: {name} is neither True nor False")
        return value


# Settings with a choice that this project does not have: the only value that can be imported.
_ONLY: dict[str, Any] = {
    "fmap_decay": 1.0,
    "normalize_latents": True,
    "use_leakyrelu": True,
    "pixelnorm_epsilon": 1e-8,
    "tanh_at_end": False,
}
# They say how the official code computes, not what.
_IGNORED = {"func", "dtype", "structure", "is_template_graph"}
_READ = {"num_channels", "resolution", "label_size", "fmap_base", "fmap_max", "use_wscale", "fused_scale"}
_READ_BY = {"G_paper": {"latent_size", "use_pixelnorm"}, "D_paper": {"mbstd_group_size"}}


def _record(network: Call, where: str, kind: str) -> _Record:
    state = network.state
    if not isinstance(state, dict) or not isinstance(state.get("variables"), list):
        raise RunError(f"{where} has no list of variables")
    if state.get("build_func_name", kind) != kind:
        built_by = reprlib.repr(state["build_func_name"])
        raise RunError(f"{where} was built by {built_by}; only networks of {kind} can be imported in this place")
    settings = state.get("static_kwargs", {})
    if not isinstance(settings, dict):
        raise RunError(f"{where}: static_kwargs is not a dictionary")
    for name in settings:
        if name not in _ONLY.keys() | _IGNORED | _READ | _READ_BY[kind]:
            raise RunError(f"{where} was built with the setting {reprlib.repr(name)}, which this project does not know")
    settings = {
        name: _array(value, f"{where}: {name}").item() if _is_call(value, _SCALAR) else value
        for name, value in settings.items()
    }
    for name in settings.keys() & _ONLY.keys():
        if settings[name] != _ONLY[name]:
            raise RunError(f"{where}: {name} is {reprlib.repr(settings[name])}; only {_ONLY[name]} can be imported")
    variables: dict[str, np.ndarray] = {}
    for entry in state["variables"]:
        match entry:
            case (str() as name, value) if name not in variables and name.isprintable():
                variables[name] = _array(value, f"{where}: {name}")
            case _:
                raise RunError(f"{where}: its variables are not pairs of a name and an array, each name once")
    return _Record(where, settings, variables)


def _shared_config(record: _Record, rgb: str, channels_axis: int, label_dim: int) -> dict[str, Any]:
    """The fields that both kinds of network have; shapes decide where the settings are silent."""
    levels = sum(name.startswith(f"{rgb}_lod") and name.endswith("/weight") for name in record.variables)
    fused = any(name.endswith(("/Conv0_up/weight", "/Conv1_down/weight")) for name in record.variables)
    return {
        "resolution": record.number("resolution", 4 << max(0, levels - 1)),
        "channels": record.number("num_channels", record.shape(f"{rgb}_lod0/weight", 4)[channels_axis]),
        "label_dim": record.number("label_size", label_dim),
        "fmap_base": record.number("fmap_base", 8192),
        "fmap_max": record.number("fmap_max", 512),
        "equalized": record.switch("use_wscale", True),
        "fused_scaling": record.switch("fused_scale", fused),
    }


def _generator_config(record: _Record, label_dim: int) -> GeneratorConfig:
    shared = _shared_config(record, "ToRGB", 3, label_dim)
    latent_dim = record.number("latent_size", record.shape("4x4/Dense/weight", 2)[0] - shared["label_dim"])
    norm: Literal["pixel", "none"] = "pixel" if record.switch("use_pixelnorm", True) else "none"
    return GeneratorConfig(**shared, latent_dim=latent_dim, norm=norm)


def _discriminator_config(record: _Record) -> DiscriminatorConfig:
    shared = _shared_config(record, "FromRGB", 2, record.shape("4x4/Dense1/weight", 2)[1] - 1)
    inputs, maps = record.shape("4x4/Conv/weight", 4)[2:]
    group = record.number("mbstd_group_size", 4 if inputs == maps + 1 else 0)
    return DiscriminatorConfig(**shared, stddev_group=group if group > 1 else 0)


def _filled(kind: type[N], config: Any, record: _Record) -> N:
    """A network with the file's variables as its weights."""
    with torch.device("meta"):  # shapes only: neither memory nor random numbers
        network = kind(config)
    names = {official_name(parameter, network): parameter for parameter in network.state_dict()}
    _check_names(record, names)
    state = {parameter: import_array(name, record.variables[name]) for name, parameter in names.items()}
    for name, parameter in names.items():
        wanted = network.state_dict()[parameter].shape
        if state[parameter].shape != wanted:
            raise RunError(
                f"{record.where}: {name} has shape {list(record.variables[name].shape)}, "
                f"which does not fit {parameter} of shape {list(wanted)}"
            )
    network.load_state_dict(state, assign=True)
    return network


def _check_names(record: _Record, names: Mapping[str, str]) -> None:
    missing = [name for name in names if name not in record.variables]
    unknown = [name for name in record.variables if name not in names and name != "lod"]
    if missing:
        raise RunError(f"{record.where} has no variable {missing[0]} ({len(missing)} of {len(names)} are missing)")
    if unknown:
        raise RunError(f"{record.where} has a variable {unknown[0]}, which a network of its settings does not have")


def _lod(record: _Record, resolution: int) -> float:
    record.shape("lod", 0)
    value = float(record.variables["lod"])
    highest = math.log2(resolution // 4)
    if not 0 <= value <= highest:
        raise RunError(f"{record.where}: lod is {value}; a network of {resolution}x{resolution} has 0 to {highest:g}")
    return value
