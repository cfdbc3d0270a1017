"""benchmarks/peers.py: what it refuses, how turns and schedules are shared out, what is mended. No clone is needed."""

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch

from progan.data.store.pyramid import ImagePyramid
from progan.presets import PRESETS
from tests.conftest import MakeConfig

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TELLS_THE_FIRST = "pro_gan_pytorch/gan.py"
OTHERS = [f"pro_gan_pytorch/{name}.py" for name in ("custom_layers", "losses", "modules", "networks", "utils")]

Refused = Callable[..., str]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """part("job") -> the module peers.job."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return lambda name: import_module(f"peers.{name}")


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, data: ImagePyramid
) -> Refused:
    """refused(clone, *words) -> the one sentence with which the command ends."""

    def answer(clone: Path, *words: object) -> str:
        monkeypatch.syspath_prepend(BENCHMARKS)
        given = ["--peer", clone, "--data", data.path, "--out", tmp_path / "out", *words]
        monkeypatch.setattr(sys, "argv", ["peers.py", *map(str, given)])
        code = runpy.run_path(str(BENCHMARKS / "peers.py"), run_name="benchmark")["main"]()
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert not (tmp_path / "out").exists()
        return err

    return answer


def clone_with(folder: Path, *files: str) -> Path:
    """A folder in which these files are, and are empty."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_folder_that_is_no_peer_is_refused(refused: Refused, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing", clone_with(tmp_path / "other", "models/DCGAN.py")):
        assert "is no clone of akanimax/pro_gan_pytorch or facebookresearch/pytorch_GAN_zoo" in refused(folder)


def test_a_clone_that_lacks_a_file_is_refused_by_its_name(refused: Refused, tmp_path: Path) -> None:
    clone = clone_with(tmp_path / "clone", TELLS_THE_FIRST, *OTHERS)
    assert "is a clone of akanimax/pro_gan_pytorch that lacks pro_gan_pytorch_scripts/train.py" in refused(clone)


def test_what_the_data_lack_is_refused(refused: Refused, tmp_path: Path) -> None:
    clone = clone_with(tmp_path / "clone", TELLS_THE_FIRST, *OTHERS, "pro_gan_pytorch_scripts/train.py")
    assert "--resolution: 32 cannot be had" in refused(clone)
    assert "use one of 16" in refused(clone, "--resolution", 64)
    assert "--pixels: 24 is not allowed" in refused(clone, "--resolution", 16, "--pixels", 24)
    assert "--seconds: 0.0 is not allowed" in refused(clone, "--seconds", 0)
    assert "nowhere" in refused(clone, "--data", tmp_path / "nowhere")


def test_growth_is_that_of_the_preset_and_fills_the_seconds(part: Callable[[str], Any]) -> None:
    demo = PRESETS["demo"].config
    schedule = replace(demo.schedule, stable_nimg=4000, fade_nimg=4000, total_nimg=36_000)
    growth = part("job").Growth.of(replace(demo, schedule=schedule))
    assert growth.nimg == (4000, 8000, 8000, 16000)
    assert growth.fade == (0, 4000, 4000, 4000)
    pace = (0.001, 0.002, 0.005, 0.01)  # 4 + 16 + 40 + 160 seconds
    half = growth.scaled(growth.scale_for(110, pace))
    assert half.nimg == (2000, 4000, 4000, 8000)
    assert half.fade == (0, 2000, 2000, 2000)


def test_a_loop_trains_in_its_turns_alone(
    part: Callable[[str], Any], make_config: MakeConfig, data: ImagePyramid
) -> None:
    job = part("job").Job("progan", "progan", make_config(), data=data.path, seconds=1.0, pace=(0.01, 0.01, 0.01))
    parent, child = Pipe()
    for order in ((0.0, 2), (0.0, 3), None):
        parent.send(order)
    trained = part("work").train_progan(job, part("job").Feed(job, part("job").Turns(child)))
    assert [len(parent.recv()), len(parent.recv())] == [2, 3]
    assert trained.about["nimg"] == 5 * job.minibatch
    assert trained.draw(3).shape == (3, 3, 16, 16)


def test_all_are_fed_the_same_images(part: Callable[[str], Any], make_config: MakeConfig, data: ImagePyramid) -> None:
    jobs = [part("job").Job(who, who, make_config(), data=data.path) for who in ("progan", "akanimax/pro_gan_pytorch")]
    feeds = []
    for job in jobs:
        parent, child = Pipe()
        parent.send((0.0, 9))
        feeds.append(part("job").Feed(job, part("job").Turns(child)))
    one, other = (torch.cat([feed.take(16) for _ in range(4)]) for feed in feeds)
    assert torch.equal(one, other)
    assert one.shape == (16, 3, 16, 16)
    assert -1 <= one.min() < 0 < one.max() <= 1
    assert len(one[: len(data)].unique(dim=0)) == len(data)  # an epoch shows each once


def test_mends_are_made_where_they_are_needed_and_written_down(
    part: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.Adam)  # to be put back
    mends = part("mends").Mends()
    mends.stand_in("json")
    assert mends.done == []
    mends.stand_in("no_such_package", "no_such_package.part")
    try:
        import_module("no_such_package.part").anything(1).anything(2)
    finally:
        for name in ("no_such_package", "no_such_package.part"):
            monkeypatch.delitem(sys.modules, name)
    mends.adam()
    weight = torch.zeros(1, requires_grad=True)
    assert torch.optim.Adam([weight], lr=0.1, betas=[0, 0.99]).param_groups[0]["betas"] == (0.0, 0.99)
    assert [mend["what"] for mend in mends.done] == ["a stand-in for no_such_package", "Adam's betas made floats"]
