"""The device that tests run on, by --device, and how far its numbers may lie from a CPU's."""

import pytest
import torch

from progan.support.device import pick_device
from progan.support.errors import ConfigError

# How many times as far from a reference, for tests of networks in float32. A GPU may take Winograd's or Fourier's form
# of a convolution, which lose about one decimal digit to a plain sum, and adds in an order of its own. That is
# reckoned, not measured: no GPU has run these tests yet.
LOOSER = {"cpu": 1.0, "cuda": 10.0, "mps": 10.0}


def chosen_device(name: str) -> torch.device:
    """What --device names; raises UsageError, with which pytest ends, if it is not there."""
    if name not in LOOSER:
        raise pytest.UsageError(f"--device: {name!r} is not allowed; use {', '.join(LOOSER)}")
    try:
        return pick_device(name)
    except ConfigError:
        raise pytest.UsageError(f"--device: {name} is not on this machine; leave it out to test on the CPU") from None


def looser(device: torch.device) -> float:
    """By what to multiply a tolerance that was found on CPUs."""
    return LOOSER[device.type]


def needs_float64(device: torch.device) -> None:
    """Skip a test where there is no float64 to be exact in."""
    if device.type == "mps":
        pytest.skip("Apple's device knows no float64")
