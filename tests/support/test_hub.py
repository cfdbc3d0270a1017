"""hf://OWNER/NAME: fetched once, kept, refused with a sentence. The hub is a server on the loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from progan.config import GeneratorConfig
from progan.networks import Generator
from progan.sampling.images import load_generator
from progan.support.errors import ConfigError, RunError, UserError
from progan.support.hub import Repository, weights_file
from progan.support.rng import seeded
from progan.weights import save_network
from tests.command import refused, run
from tests.conftest import MakeData
from tests.hub_server import Hub

NAME = "someone/faces"


@pytest.fixture
def weights(tmp_path: Path) -> Callable[[int], bytes]:
    """weights(seed) -> a weights file of a network of 8x8."""

    def make(seed: int) -> bytes:
        with seeded(seed, "test"):
            g = Generator(GeneratorConfig(resolution=8, fmap_base=16, fmap_max=8))
        save_network(tmp_path / "made.safetensors", g, nimg=seed, resolution=8, alpha=0.5)
        return (tmp_path / "made.safetensors").read_bytes()

    return make


def test_a_generator_comes_from_the_hub_once(hub: Hub, weights: Callable[[int], bytes], tmp_path: Path) -> None:
    hub.repositories[NAME] = [{"README.md": b"", "generator.safetensors": weights(1)}]
    g, stage = load_generator(f"hf://{NAME}")
    wanted, _ = load_generator(tmp_path / "made.safetensors")
    assert stage == {"resolution": 8, "alpha": 0.5}
    assert g.config == wanted.config
    assert all(torch.equal(a, b) for a, b in zip(g.parameters(), wanted.parameters(), strict=True))
    load_generator(f"hf://{NAME}")
    fetched = [path for method, path, _ in hub.asked if method == "GET" and "resolve" in path]
    assert fetched == [f"/{NAME}/resolve/main/generator.safetensors"]


def test_a_revision_is_what_it_was(hub: Hub, weights: Callable[[int], bytes]) -> None:
    hub.repositories[NAME] = [{"generator.safetensors": weights(seed)} for seed in (1, 2)]
    first, second, main = hub.commits(NAME)
    assert weights_file(f"hf://{NAME}@{first}").read_bytes() == weights(1)
    assert weights_file(f"hf://{NAME}@{second}").read_bytes() == weights(2)
    assert weights_file(f"hf://{NAME}@{main}").read_bytes() == weights_file(f"hf://{NAME}").read_bytes() == weights(2)


def test_without_a_network_the_cache_serves(
    monkeypatch: pytest.MonkeyPatch, hub: Hub, weights: Callable[[int], bytes]
) -> None:
    from huggingface_hub import constants

    hub.repositories[NAME] = [{"generator.safetensors": weights(1)}]
    path = weights_file(f"hf://{NAME}")
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights_file(f"hf://{NAME}") == path
    assert len(hub.asked) == asked
    with pytest.raises(UserError, match="hf://someone/others: HF_HUB_OFFLINE is set and the cache has it not"):
        weights_file("hf://someone/others")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    assert weights_file(f"hf://{NAME}") == path
    with pytest.raises(UserError, match="hf://someone/others: the hub cannot be reached"):
        weights_file("hf://someone/others")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "hf://someone/faces: holds no progan model, which is a generator.safetensors"),
        (["model.safetensors", "README.md"], "hf://someone/faces: holds no progan model"),
        (["a.md", "model/faces.pkl"], "hf://someone/faces: holds model/faces.pkl, a pickle"),
        (["generator.pt"], "holds generator.pt, a pickle"),
        (["pytorch_model.bin"], "holds pytorch_model.bin, a pickle"),
        (["last.CKPT"], "holds last.CKPT, a pickle"),
        (["\x1b[2J.pkl"], "holds ?[2J.pkl, a pickle"),
    ],
)
def test_what_is_no_model_is_refused_unread(
    capsys: pytest.CaptureFixture[str], hub: Hub, tmp_path: Path, files: list[str], sentence: str
) -> None:
    hub.repositories[NAME] = [dict.fromkeys(files, b"cos\nsystem\n")]
    assert sentence in refused(capsys, "generate", f"hf://{NAME}", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not any("resolve" in path for _, path, _ in hub.asked)


def test_a_pickle_beside_the_weights_is_left_alone(hub: Hub, weights: Callable[[int], bytes]) -> None:
    hub.repositories[NAME] = [{"generator.safetensors": weights(1), "g.pkl": b"cos\nsystem\n"}]
    load_generator(f"hf://{NAME}")
    assert not any("pkl" in path for _, path, _ in hub.asked)


@pytest.mark.parametrize("content", [b"cos\nsystem\n", save({"weight": torch.zeros(3)})])
def test_weights_of_something_else_are_refused(hub: Hub, content: bytes) -> None:
    hub.repositories[NAME] = [{"generator.safetensors": content}]
    with pytest.raises(RunError, match=r"models--someone--faces.*the weights of a progan generator"):
        load_generator(f"hf://{NAME}")


def test_what_the_hub_refuses_is_said(
    monkeypatch: pytest.MonkeyPatch, hub: Hub, weights: Callable[[int], bytes]
) -> None:
    hub.repositories[NAME] = [{"generator.safetensors": weights(1)}]
    with pytest.raises(RunError, match=r"hf://someone/faces@old: has no such revision; check what follows the @"):
        weights_file(f"hf://{NAME}@old")
    with pytest.raises(RunError, match=r"hf://someone/other: is not on the hub, or hidden"):
        weights_file("hf://someone/other")
    hub.private.add(NAME)
    weights_file(f"hf://{NAME}")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "nowhere")
    with pytest.raises(RunError, match=r"hf://someone/faces: is not on the hub, or hidden; .* `hf auth login`"):
        weights_file(f"hf://{NAME}")
    for status, sentence in (
        (403, r"the hub refuses this \(403\)"),
        (500, r"the hub answers with an error \(500\)"),
        (200, "the hub cannot be asked; check HF_ENDPOINT and HF_TOKEN"),  # as a network does that wants a login
    ):
        hub.fails = status
        with pytest.raises(UserError, match=f"hf://someone/faces: {sentence}"):
            weights_file(f"hf://{NAME}")
    monkeypatch.setenv("HF_TOKEN", "hf_secrét")
    with pytest.raises(UserError, match="hf://someone/faces: the hub cannot be asked") as refused:
        weights_file(f"hf://{NAME}")
    assert "secr" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "hf://",
        "hf://faces",
        "hf://a/b/c",
        "hf://a/b@",
        "hf://a b/c",
        "hf://a/b@one two",
        "hf://a/b--c",
        "hf://-/b",
        "hf://a/b\n",
    ],
)
def test_malformed_names_are_refused(hub: Hub, name: str) -> None:
    with pytest.raises(ConfigError, match="is no repository of the hub; write OWNER/NAME or OWNER/NAME@REVISION"):
        weights_file(name)
    assert not hub.asked


def test_names_are_read() -> None:
    assert Repository.parse("hf://a/b") == Repository.parse("a/b") == Repository.parse("hf:/a/b") == Repository("a/b")
    assert Repository.parse("hf://a-1/b_2.c@refs/pr/1") == Repository("a-1/b_2.c", "refs/pr/1")
    assert str(Repository("a/b", "v1")) == "hf://a/b@v1"
    assert str(Repository("a/b")) == "hf://a/b"


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        UserError, match=r'hf://a/b: needs the package huggingface_hub; run: pip install "progan\[hub\]"'
    ):
        weights_file("hf://a/b")
    assert weights_file(tmp_path / "g.safetensors") == tmp_path / "g.safetensors"


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "--seeds", 3, "--device", "cpu", "--out", "pictures"),
        ("video", "--seconds", 0.1, "--device", "cpu", "--out", "walk.webp"),
        ("export", "--to", "web", "--out", "page.html"),
        ("export", "--to", "onnx", "--out", "g.onnx"),
    ],
    ids=lambda command: "-".join(map(str, command[:3])),
)
def test_commands_take_it_like_a_file(
    capsys: pytest.CaptureFixture[str],
    hub: Hub,
    weights: Callable[[int], bytes],
    tmp_path: Path,
    command: tuple[str, ...],
) -> None:
    hub.repositories[NAME] = [{"generator.safetensors": weights(1)}]
    written = []
    for source in (f"hf://{NAME}", tmp_path / "made.safetensors"):
        out = tmp_path / f"{len(written)}" / command[-1]
        out.parent.mkdir()
        assert run(capsys, command[0], source, *command[1:-1], out)[0] == 0
        written.append([path.read_bytes() for path in ([out] if out.is_file() else sorted(out.iterdir()))])
    assert written[0] == written[1]
    assert written[0]


def test_evaluate_takes_it_too(
    capsys: pytest.CaptureFixture[str],
    hub: Hub,
    weights: Callable[[int], bytes],
    make_data: MakeData,
    tmp_path: Path,
) -> None:
    hub.repositories[NAME] = [{"generator.safetensors": weights(1)}]
    data = make_data(count=24, resolution=8)
    for source in (f"hf://{NAME}", tmp_path / "made.safetensors"):
        command = ("evaluate", source, "--data", data.path, "--metrics", "ms_ssim", "--images", 16, "--device", "cpu")
        assert run(capsys, *command, "--out", tmp_path / "out")[0] == 0
    first, second = [
        json.loads(line)["values"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    assert first == second


@pytest.mark.slow
def test_the_environment_says_where_and_whether(hub: Hub, weights: Callable[[int], bytes], tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE of the real command; the token is sent, and seen nowhere."""
    hub.repositories[NAME] = [{"generator.safetensors": weights(1)}]
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "progan", "generate", f"hf://{NAME}", "--seeds", "0", "--device", "cpu", "--out"]
    for more, asks in (({}, True), ({"HF_HUB_OFFLINE": "1"}, False)):
        hub.asked.clear()
        out = tmp_path / f"out {asks}"
        done = subprocess.run([*command, out], env=environment | more, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert (out / "seed0000.png").exists()
        assert ("Bearer hf_secret" in [token for _, _, token in hub.asked]) == asks
        assert bool(hub.asked) == asks
        assert "hf_secret" not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not any(b"hf_secret" in path.read_bytes() for path in files)
