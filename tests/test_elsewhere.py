"""Steps and descriptions on a device that is not the CPU, where there is none.

The meta device stands in: it computes no numbers, refuses to be read, and here every operation that mixes its tensors
with the CPU's is refused, as a GPU would. So what passes leaves nothing behind on the CPU, and never waits for the
device in the midst of its work.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from progan.config import LossConfig
from progan.data.store.pyramid import ImagePyramid
from progan.metrics.sliced_wasserstein import descriptors, laplacian_pyramid, normalize, random_positions
from progan.run.minibatches import read_reals
from progan.run.state import TrainState
from progan.schedule import Schedule
from progan.step import train_step
from tests.conftest import MakeConfig

META = torch.device("meta")


class OneDevice(TorchDispatchMode):
    """Refuses operations on two devices, but for copies, single numbers, and indices, which GPUs take from a CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.ndim]
        if func not in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.ops.aten.index.Tensor):
            assert len({x.device for x in given}) < 2, f"{func} is given {[x.device for x in given]}"
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _one_device() -> Iterator[None]:
    with OneDevice():
        yield


@pytest.fixture(autouse=True)
def _without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which knows no meta device; in float32 it does nothing."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **how: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *args: False)


STEPS: dict[str, dict[str, Any]] = {
    "paper": {},
    "labels": {"g": {"label_dim": 3}, "d": {"label_dim": 3}},
    "lsgan": {"loss": LossConfig(kind="lsgan")},
    "in parts": {"micro_batch": {4: 4}, "schedule": {"batch": {4: 8}}},
    "table 1": {"g": {"norm": "batch", "output": "tanh"}, "d": {"norm": "layer", "fused_scaling": False}, "d_steps": 2},
    "minibatch discrimination": {"d": {"minibatch_kernels": 4, "stddev_group": 0}},
}


@pytest.mark.parametrize("what", STEPS)
@pytest.mark.parametrize("nimg", [0, 40], ids=["4x4", "fade to 8x8"])
def test_a_step_stays_on_its_device_and_never_waits_for_it(
    make_config: MakeConfig, labelled: ImagePyramid, what: str, nimg: int
) -> None:
    fields = {**STEPS[what]}
    schedule = {"stable_nimg": 32, "fade_nimg": 32, **fields.pop("schedule", {})}
    config = make_config(schedule=schedule, **fields)
    state = TrainState.create(config, META)
    state.nimg = nimg
    phase = Schedule(config.schedule, config.g.resolution).at(nimg)
    terms = train_step(state, partial(read_reals, labelled, config, phase, META), phase)
    assert {term.device for term in terms.values()} == {META}
    assert all(weight.device == META for network in (state.g, state.d, state.g_ema) for weight in network.parameters())


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> ImagePyramid:
    from tests.conftest import write_data

    return write_data(tmp_path_factory.mktemp("labelled") / "data", labels=3)


def test_what_lies_elsewhere_is_refused() -> None:
    """Or else the other tests would say nothing."""
    there, here = torch.ones(2, device=META), torch.ones(2)
    with pytest.raises((AssertionError, RuntimeError), match="device"):
        there.index_select(0, here.long())
    with pytest.raises(RuntimeError, match="meta"):
        there.sum().item()


def test_descriptors_are_where_the_images_are() -> None:
    images: Tensor = torch.zeros(2, 3, 32, 32, device=META)
    for level in laplacian_pyramid(images):
        positions = random_positions(2, 5, level.shape[-1], torch.Generator().manual_seed(0))
        found = descriptors(level, positions)
        assert found.device == META
        assert found.shape == (10, 147)
        assert normalize(found, *torch.ones(2, 3, device=META)).device == META
