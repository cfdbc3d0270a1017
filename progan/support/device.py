"""Where and in which number format the networks compute."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from progan.support.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]


def pick_device(name: str) -> torch.device:
    """The device by name; "auto" takes CUDA, then Apple's, then the CPU. Raises ConfigError if it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"device: {name!r} is not on this machine; use auto, cpu, cuda or mps") from None
    return device


def pick_precision(name: Precision, device: torch.device) -> Precision:
    """ "fp32" or "bf16"; "auto" takes bf16 where the hardware multiplies it faster than float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        # Older versions of PyTorch do not tell.
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = device.type == "cpu" and capabilities.get("avx512_bf16", False)
    return "bf16" if fast else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Convolutions and dense layers in `precision`; weights, losses and the penalty's norm stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
