"""What GPUs are told of TF32, cuDNN and determinism, seen by the switches themselves: no GPU is needed to read them."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import progan.training
from progan.data.store.pyramid import ImagePyramid
from progan.metrics.features import FeatureCollector, FeatureProtocol
from progan.networks import Generator
from progan.run.folder import read_config
from progan.sampling.images import sample, seed_latents
from progan.support.arithmetic import CUBLAS, number_format, same_bits
from progan.support.device import pick_precision
from progan.support.errors import ConfigError, RunError
from progan.support.run_files import RunFolder, read_lines
from progan.training import train
from tests.command import refused
from tests.conftest import MakeConfig
from tests.sampling.test_images import generator

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BACKENDS: Any = torch.backends


def switches() -> dict[str, object]:
    """All that decides how numbers are multiplied and added."""
    return {
        "products": BACKENDS.cuda.matmul.fp32_precision,
        "products, by the older name": BACKENDS.cuda.matmul.allow_tf32,  # fails where the two contradict each other
        "convolutions": BACKENDS.cudnn.conv.fp32_precision,
        "convolutions, by the older name": BACKENDS.cudnn.allow_tf32,
        "products on a CPU": BACKENDS.mkldnn.matmul.fp32_precision,
        "convolutions on a CPU": BACKENDS.mkldnn.conv.fp32_precision,
        "sums in bf16": BACKENDS.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "benchmark": BACKENDS.cudnn.benchmark,
        "deterministic cuDNN": BACKENDS.cudnn.deterministic,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filled": BACKENDS and torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    }


EXACT = {
    "products": "ieee",
    "products, by the older name": False,
    "convolutions": "ieee",
    "convolutions, by the older name": False,
    "products on a CPU": "ieee",
    "convolutions on a CPU": "ieee",
    "sums in bf16": False,
    "benchmark": False,
    "deterministic cuDNN": False,
    "deterministic": False,
    "filled": True,
}
TF32 = EXACT | {
    "products": "tf32",
    "products, by the older name": True,
    "convolutions": "tf32",
    "convolutions, by the older name": True,
}


@pytest.fixture(params=["as PyTorch starts", "as fast as can be", "by the newer names"])
def process(request: pytest.FixtureRequest) -> Any:
    """A process that has been told other things before."""
    before = switches()
    if request.param == "as fast as can be":
        torch.set_float32_matmul_precision("medium")
        BACKENDS.cudnn.allow_tf32 = BACKENDS.cudnn.benchmark = True
    elif request.param == "by the newer names":
        BACKENDS.cuda.matmul.allow_tf32 = True
        BACKENDS.cudnn.conv.fp32_precision = BACKENDS.cudnn.rnn.fp32_precision = "ieee"
        BACKENDS.cudnn.allow_tf32 = False
    yield request.param
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32, BACKENDS.cudnn.benchmark = True, False
    for operation in (BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv):
        operation.fp32_precision = "none"
    BACKENDS.cudnn.conv.fp32_precision = BACKENDS.cudnn.rnn.fp32_precision = "tf32"
    assert switches() == before


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize(("precision", "wanted"), [("fp32", EXACT), ("bf16", EXACT), ("tf32", TF32)])
def test_a_format_is_what_it_says_whatever_the_process_was_told_before(
    precision: str, wanted: dict[str, object]
) -> None:
    before = switches()
    older = torch.get_float32_matmul_precision()
    with number_format(precision):
        assert switches() == wanted
        with number_format("fp32"):
            assert switches() == EXACT
        assert switches() == wanted
    with number_format(precision, tuned=True):
        assert switches() == wanted | {"benchmark": True}
    assert switches() == before
    assert torch.get_float32_matmul_precision() == older


def test_the_same_bits_are_asked_for_in_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    before = switches()
    with same_bits(False, GPU):
        assert switches() == before
        assert CUBLAS not in os.environ
    with same_bits(True, GPU), number_format("tf32", tuned=True):
        assert os.environ[CUBLAS] == ":4096:8"
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert switches() == TF32 | {"deterministic": True, "deterministic cuDNN": True, "filled": False}
    assert switches() == before
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with same_bits(True, GPU):  # the variable is still there
        pass
    monkeypatch.delenv(CUBLAS)
    with same_bits(True, CPU):
        assert CUBLAS not in os.environ


@pytest.mark.parametrize(
    ("device", "variable", "started", "message"),
    [
        ("mps", None, False, "deterministic: mps promises no such thing; use device cuda or cpu"),
        ("cuda", ":0:0", False, f"deterministic: {CUBLAS} is ':0:0'; unset it, or set it to :4096:8 or :16:8"),
        ("cuda", None, True, f"deterministic: CUDA has started already; set {CUBLAS}=:4096:8 before Python starts"),
    ],
)
def test_where_the_same_bits_cannot_be_had(
    device: str, variable: str | None, started: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    if variable is not None:
        monkeypatch.setenv(CUBLAS, variable)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started)
    with pytest.raises(ConfigError, match=message), same_bits(True, torch.device(device)):
        pass
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.get(CUBLAS) == variable


def test_an_operation_that_never_gives_the_same_bits_ends_in_a_sentence() -> None:
    def operation() -> None:
        raise RuntimeError("upsample_cuda does not have a deterministic implementation, but you set 'torch.use_")

    said = "deterministic: on cpu upsample_cuda never gives the same bits; leave --deterministic out"
    with pytest.raises(ConfigError, match=said), same_bits(True, CPU):
        operation()
    with pytest.raises(RuntimeError, match="other"), same_bits(True, CPU):
        raise RuntimeError("other")
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("capability", "there"), [((8, 0), True), ((9, 0), True), ((7, 5), False)])
def test_tf32_is_for_gpus_that_have_it(
    capability: tuple[int, int], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for device in [GPU] * (not there) + [CPU, torch.device("mps")]:
        with pytest.raises(
            ConfigError, match=f"precision: tf32 is for NVIDIA's .* and not for {device}; use fp32, bf16"
        ):
            pick_precision("tf32", device)
    assert pick_precision("auto", GPU) == ("bf16" if there else "fp32")
    if there:
        assert pick_precision("tf32", GPU) == "tf32"


# Where they are set.


def test_a_run_asks_for_what_its_config_says_and_its_images_for_float32(
    make_config: MakeConfig, data: ImagePyramid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[dict[str, object]]] = {"steps": [], "images": []}
    step, forward = progan.training.train_step, Generator.forward

    def watched_step(*args: Any) -> Any:
        seen["steps"].append(switches())
        return step(*args)

    def watched_forward(self: Generator, *args: Any, **how: Any) -> Any:
        if not self.training:  # the moving average
            seen["images"].append(switches())
        return forward(self, *args, **how)

    monkeypatch.setattr(progan.training, "train_step", watched_step)
    monkeypatch.setattr(Generator, "forward", watched_forward)
    before, config = switches(), make_config()
    short = replace(config, schedule=replace(config.schedule, total_nimg=8))
    for deterministic in (False, True):
        train(replace(short, deterministic=deterministic), data, tmp_path / f"run{deterministic}")
        asked = {"deterministic": True, "deterministic cuDNN": True, "filled": False} if deterministic else {}
        assert seen["steps"] == [EXACT | {"benchmark": not deterministic} | asked] * 2
        assert seen["images"]
        assert all(found == EXACT | asked for found in seen["images"])
        seen["steps"].clear(), seen["images"].clear()
    assert switches() == before


def test_generation_and_features_are_float32_in_a_process_that_multiplies_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    forward = Generator.forward
    monkeypatch.setattr(Generator, "forward", lambda *args, **how: (seen.append(switches()), forward(*args, **how))[1])

    def network(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(switches())
        return torch.zeros(len(images), 2), torch.zeros(len(images), 2)

    monkeypatch.setattr("progan.metrics.features.load_feature_network", lambda *args: network)
    with number_format("tf32"):
        images = sample(generator(), seed_latents(range(3), 16))
        FeatureCollector(FeatureProtocol("efficientnet_lite0", 3)).add(images)
        assert switches() == TF32
    assert seen == [EXACT, EXACT]


def test_a_cpu_gives_the_same_bits_either_way_and_a_run_keeps_its_promise(
    make_config: MakeConfig, data: ImagePyramid, tmp_path: Path
) -> None:
    config = make_config()
    short = replace(config, schedule=replace(config.schedule, total_nimg=48))
    plain, promised = (
        train(short, data, tmp_path / "a"),
        train(replace(short, deterministic=True), data, tmp_path / "b"),
    )
    for name, value in plain.g_ema.state_dict().items():
        assert torch.equal(promised.g_ema.state_dict()[name], value), name
    assert "deterministic" not in next(iter(read_lines(RunFolder(tmp_path / "a").machines)))
    assert next(iter(read_lines(RunFolder(tmp_path / "b").machines)))["deterministic"] is True
    assert read_config(RunFolder(tmp_path / "b"), "")[0].deterministic
    with pytest.raises(RunError, match="deterministic was True and is now False"):
        train(config, data, tmp_path / "b")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--precision", "tf32", "--device", "cpu"], "precision: tf32 is for NVIDIA's GPUs"),
        (["--deterministic", "--device", "mps"], "deterministic: mps promises no such thing"),
    ],
)
def test_a_run_that_cannot_be_as_asked_leaves_nothing(
    words: list[str],
    sentence: str,
    data: ImagePyramid,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    out = tmp_path / "run"
    said = refused(capsys, "train", "--resolution", "16", "--data", data.path, "--out", out, *words)
    assert sentence in said
    assert not out.exists()
