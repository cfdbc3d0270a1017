"""Devices by name, without touching them."""

import pytest
import torch

from progan.support.device import pick_device
from progan.support.errors import ConfigError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, on which nothing may be allocated."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was allocated")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", refuse)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_there(name: str) -> None:
    assert pick_device(name) == torch.device(name)
    assert pick_device("auto") == torch.device("cuda")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", ["cuda:2", "cuda:-1", "mps", "meta", "hpu", "xla:0", "gpu", "", "cpu:9" + "9" * 30])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device: '{name}' is not on this machine; use auto, cpu, cuda or mps"):
        pick_device(name)
