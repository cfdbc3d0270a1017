"""The option --device of these tests."""

import pytest
import torch

from tests.devices import LOOSER, chosen_device, looser


def test_a_device_that_is_not_there_ends_the_tests_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(pytest.UsageError, match=r"^--device: cuda is not on this machine; leave it out"):
        chosen_device("cuda")
    for name in ("gpu", "cuda:1", ""):
        with pytest.raises(pytest.UsageError, match=f"^--device: '{name}' is not allowed; use cpu, cuda, mps$"):
            chosen_device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert chosen_device("cuda") == torch.device("cuda")


def test_pytest_gives_it_to_the_tests_that_take_it(pytestconfig: pytest.Config, device: torch.device) -> None:
    assert device.type == pytestconfig.getoption("--device")
    assert looser(device) == LOOSER[device.type]
    assert looser(torch.device("cpu")) == 1


def test_a_test_that_takes_a_device_is_marked_and_no_other(request: pytest.FixtureRequest) -> None:
    assert not request.node.get_closest_marker("any_device")
    marked = [item.name for item in request.session.items if item.get_closest_marker("any_device")]
    assert "test_pytest_gives_it_to_the_tests_that_take_it" in marked
