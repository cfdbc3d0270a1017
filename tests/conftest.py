"""Small data sets and small runs that every test can afford."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import progan.metrics.suite
from progan.config import DiscriminatorConfig, GeneratorConfig, ScheduleConfig, TrainConfig
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.metrics.sliced_wasserstein import SwdProtocol
from progan.support.arithmetic import number_format
from tests.devices import chosen_device
from tests.hub_server import Hub, serving

MakeData = Callable[..., ImagePyramid]
MakeConfig = Callable[..., TrainConfig]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests of any device run: cpu, cuda or mps")


def pytest_configure(config: pytest.Config) -> None:
    chosen_device(config.getoption("--device"))
    config.addinivalue_line("markers", "any_device: runs on the device that --device names; added by itself")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "device" in getattr(item, "fixturenames", ()):
            item.add_marker("any_device")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where a test of any device runs, in float32 that is all of it; `pytest -m any_device` runs these tests alone."""
    with number_format("fp32"):
        yield chosen_device(request.config.getoption("--device"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks gain nothing from threads, and lose much when the machine is busy."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Statistics of test images stay out of the user's cache."""
    os.environ["PROGAN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def few_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """SWD along 16 directions in place of 512, for tests of what surrounds it."""
    monkeypatch.setattr(progan.metrics.suite, "SWD", SwdProtocol(directions=16))


def write_data(
    path: Path, *, count: int = 13, resolution: int = 16, channels: int = 3, labels: int = 0, seed: int = 0
) -> ImagePyramid:
    """A data set of random images: each its own colour, with noise; image i has the label i % labels."""
    rng = np.random.default_rng(seed)
    names = [f"class{i}" for i in range(labels)] or None
    with PyramidWriter(
        path, resolution=resolution, channels=channels, label_names=names, source={"kind": "test"}
    ) as writer:
        for i in range(count):
            colour = rng.integers(40, 216, (channels, 1, 1))
            noise = rng.integers(-40, 40, (channels, resolution, resolution))
            writer.append(box_pyramid((colour + noise).astype(np.uint8)), i % labels if labels else None)
    return ImagePyramid.open(path)


@pytest.fixture
def make_data(tmp_path: Path) -> MakeData:
    """make_data(name="data", **what) -> ImagePyramid in the test's own folder."""
    return lambda name="data", **what: write_data(tmp_path / name, **what)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImagePyramid:
    """One data set at 16x16 for all; only to be read."""
    return write_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub of the test's own, empty, with which huggingface_hub speaks; and a cache, and the token "hf_secret"."""
    from huggingface_hub import constants

    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield hub


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    """make_config(resolution=16, schedule={...}, g={...}, d={...}, **fields) -> a tiny TrainConfig, float32, CPU."""

    def make(
        *,
        resolution: int = 16,
        schedule: dict[str, Any] | None = None,
        g: dict[str, Any] | None = None,
        d: dict[str, Any] | None = None,
        **fields: Any,
    ) -> TrainConfig:
        shape = {"resolution": resolution, "fmap_base": 32, "fmap_max": 16}
        growth = {"stable_nimg": 16, "fade_nimg": 16, "total_nimg": 96, "batch": {4: 4}}
        config = TrainConfig(
            g=GeneratorConfig(**{**shape, **(g or {})}),
            d=DiscriminatorConfig(**{**shape, **(d or {})}),
            schedule=ScheduleConfig(**{**growth, **(schedule or {})}),
            precision="fp32",
            device="cpu",
            tick_nimg=8,
            snapshot_nimg=32,
            checkpoint_nimg=16,
        )
        return replace(config, **fields)

    return make
