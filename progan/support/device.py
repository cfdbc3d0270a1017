"""Where and in which number format the networks compute."""

import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch

from progan.support.errors import ConfigError
from progan.support.workers import cores

Precision = Literal["auto", "fp32", "tf32", "bf16"]

AMPERE = (8, 0)  # the compute capability from which NVIDIA's GPUs have bf16 and TF32


def pick_device(name: str) -> torch.device:
    """The device by name; "auto" takes CUDA, then Apple's, then the CPU. Raises ConfigError if it is not there.

    Nothing is allocated on it: a process that shares a machine's GPUs with others has not chosen its own yet.
    """
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if (device.index or 0) >= there.get(device.type, 0):
        raise ConfigError(f"device: {name!r} is not on this machine; use auto, cpu, cuda or mps")
    return device


def pick_precision(name: Precision, device: torch.device) -> Precision:
    """ "fp32", "tf32" or "bf16"; "auto" takes bf16 where the hardware multiplies it faster than float32.

    "tf32" is float32 whose products keep ten bits of the mantissa. Raises ConfigError where the hardware has none of
    it: elsewhere than on NVIDIA's GPUs from compute capability 8.0 on.
    """
    if name == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < AMPERE):
        raise ConfigError(
            f"precision: tf32 is for NVIDIA's GPUs from compute capability 8.0 on, and not for {device}; use fp32, bf16"
            " or auto"
        )
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= AMPERE
    else:
        # Older versions of PyTorch do not tell.
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = device.type == "cpu" and capabilities.get("avx512_bf16", False)
    return "bf16" if fast else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Convolutions and dense layers in `precision`; weights, losses and the penalty's norm stay float32.

    TF32 is no type of its own: it is how float32 is multiplied, which `number_format` says.
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, float32 stays float32, whatever `autocast` surrounds it."""
    return torch.autocast(device.type, enabled=False) if autocast_dtype(device) else nullcontext()


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What `autocast` multiplies in here, or None outside of it."""
    there = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if there else None


def processor() -> str:
    """How many cores this process may use, and of what: '2 cores, AMD EPYC'."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{cores()} cores, {names[0] if names else platform.processor() or platform.machine()}"


def machine(device: torch.device) -> dict[str, Any]:
    """What a run computes on, for people: the processor, and the GPU if that is what it is; PyTorch and Python."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    about = {"device": device.type, "processor": processor(), "threads": torch.get_num_threads()} | gpu
    return about | {"torch": torch.__version__, "python": platform.python_version()}
