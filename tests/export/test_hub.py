"""`progan push`: what goes to the hub, and the card that is written from the run."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import progan.export.card
from progan.config import GeneratorConfig
from progan.networks import Generator, parameter_count
from progan.sampling.images import load_generator, sample, seed_latents
from progan.training import fit_to_data, train
from progan.weights import save_network
from tests.command import refused, run
from tests.hub_server import Hub

NAME = "me/faces"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # of the hub's package, in itself
CREDIT = {"title": "Heads", "creator": "A. Painter", "licence": "CC BY 4.0", "text": "Remix of Heads"}


@pytest.fixture
def trained(make_data: Any, make_config: Any, tmp_path: Path) -> Path:
    """A run of three classes with a measurement."""
    data = make_data(labels=3)
    data.manifest["attribution"] = CREDIT
    train(fit_to_data(make_config(schedule={"total_nimg": 40}), data), data, tmp_path / "run")
    row = {"metric": "swd", "protocol": "p", "data": data.hash, "resolution": 16, "mirrored": False}
    row |= {"spread": {"16": 0.25}, "images": {"fakes": 8192}, "floor": {"16": 1.5, "average": 1.25}}
    values = [{"16": 40.0, "average": 30.0}, {"16": 20.5, "average": 10.5}]
    lines = [json.dumps(row | {"nimg": nimg, "values": v}) for nimg, v in zip((32, 40), values, strict=True)]
    lines.append(json.dumps(row | {"nimg": 48, "values": {"16": 77.0}, "data": "of others"}))
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "run"


def test_what_is_pushed_is_what_comes_back(
    capsys: pytest.CaptureFixture[str], hub: Hub, trained: Path, tmp_path: Path
) -> None:
    capsys.readouterr()
    code, out, err = run(capsys, "push", trained, NAME)
    assert (code, out) == (0, f"pushed: {hub.url}/{NAME}\n")
    assert "hf_secret" not in out + err
    files = hub.commits(NAME)["main"]
    assert files.keys() == {".gitattributes", "generator.safetensors", "config.json", "grid.png", "README.md"}
    assert files["generator.safetensors"] == (trained / "generator.safetensors").read_bytes()
    assert not any(b"hf_secret" in content for content in files.values())
    g, stage = load_generator(f"hf://{NAME}")
    wanted, wanted_stage = load_generator(trained)
    assert stage == wanted_stage
    assert all(torch.equal(a, b) for a, b in zip(g.parameters(), wanted.parameters(), strict=True))
    config = json.loads(files["config.json"])
    assert GeneratorConfig(**config["config"]) == g.config
    assert (config["kind"], config["nimg"], config["data"]["attribution"]) == ("generator", 40, CREDIT)


def test_what_is_on_the_hub_is_pushed_on(capsys: pytest.CaptureFixture[str], hub: Hub, trained: Path) -> None:
    for source, name in ((trained, NAME), (f"hf://{NAME}", "you/faces")):
        assert run(capsys, "push", source, name)[0] == 0
    first, second = (hub.commits(name)["main"] for name in (NAME, "you/faces"))
    assert first["generator.safetensors"] == second["generator.safetensors"]
    assert b"Not measured." in second["README.md"]  # only the run's folder has that


def test_pushed_again_it_is_another_commit(capsys: pytest.CaptureFixture[str], hub: Hub, trained: Path) -> None:
    hub.repositories[NAME] = [{"notes.txt": b"mine", "README.md": b"old"}]
    assert run(capsys, "push", trained, NAME)[0] == 0
    old, new = hub.repositories[NAME]
    assert old == {"notes.txt": b"mine", "README.md": b"old"}
    assert new["notes.txt"] == b"mine"
    assert b"# me/faces" in new["README.md"]
    assert NAME not in hub.private


def test_a_private_one_is_private(capsys: pytest.CaptureFixture[str], hub: Hub, trained: Path) -> None:
    assert run(capsys, "push", trained, NAME, "--private")[0] == 0
    assert NAME in hub.private


def test_the_card_is_written_from_the_run(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    """Without the hub: with --out nothing is sent."""
    out = tmp_path / "card"
    assert run(capsys, "push", trained, NAME, "--out", out)[1].startswith(f"written to {out}; nothing was sent")
    card = (out / "README.md").read_text()
    header = card.split("---\n")[1]
    assert "library_name: progan" in header
    g, stage = load_generator(trained)
    for words in (
        f"# {NAME}\n",
        "RGB images of 8x8 pixels, of 3 classes",
        f"Training showed 40 real images. {parameter_count(g):,} parameters",
        "13 images, made by `progan data create test`",
        "Classes: class0, class1, class2.",
        "Heads; by A. Painter; licence: CC BY 4.0.\n\nRemix of Heads",
        "| SWD x1e3 16 | 8,192 | 20.5 | 0.25 | 1.5 |",
        "| SWD x1e3 average | 8,192 | 10.5 |  | 1.25 |",
        "Measured against the training data when 40 images had been shown",
        f'progan.load_generator("hf://{NAME}")',
        f"progan generate hf://{NAME}",
        "It has not grown up: of 16x16 pixels it makes 8x8, with the newest block at weight",
        "nothing but their class and their seed",
    ):
        assert words in card, words
    assert "| 40 |" not in card  # of the older measurement
    assert "| 77 |" not in card
    with Image.open(out / "grid.png") as grid:
        first = np.asarray(grid)[:8, 8:16].transpose(2, 0, 1)
    labels = torch.eye(3)[[1]]
    assert np.array_equal(first, sample(g, seed_latents([1], g.config.z_dim), labels, **stage)[0])


def test_the_code_on_the_card_runs(hub: Hub, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "push", trained, NAME)[0] == 0
    card = hub.commits(NAME)["main"]["README.md"].decode()
    code = card.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["images"].shape == (8, 3, 8, 8)
    assert names["images"].dtype == np.uint8


def test_a_card_says_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_network(tmp_path / "g.safetensors", Generator(GeneratorConfig(resolution=8, channels=1, fmap_max=4)))
    assert run(capsys, "push", tmp_path / "g.safetensors", NAME, "--out", tmp_path / "out")[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "gray images of 8x8 pixels, trained" in card
    assert "The weights do not say what they were trained on, nor under which licence that is." in card
    assert "Not measured." in card
    assert "not grown up" not in card
    assert "labels" not in card
    data = {"hash": "h", "count": 4, "label_names": None, "source": None, "attribution": None}
    row = {"metric": "fid", "nimg": 1, "values": {"": 5.0}, "spread": {}}  # of before there was more
    known = progan.export.card.model_card(NAME, GeneratorConfig(), {"data": data}, parameters=1, seeds=1, metrics=[row])
    assert "4 images; sha256 h." in known
    assert "The licence of the data is not known." in known
    assert "| fid | 0 | 5 |  |  |" in known


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes


def test_a_push_that_cannot_be_sends_nothing(
    capsys: pytest.CaptureFixture[str], hub: Hub, trained: Path, tmp_path: Path
) -> None:
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    for source, name, sentence in (
        (tmp_path / "nowhere", NAME, "nowhere: no such file; give the weights of a generator"),
        (tmp_path / "empty", NAME, "empty: holds no generator yet"),
        (trained / "config.json", NAME, "config.json: cannot be read as the weights of a progan generator"),
        (trained, "faces", "faces: is no repository of the hub; write OWNER/NAME"),
        (trained, "me/faces/two", "me/faces/two: is no repository of the hub"),
        (trained, "me/faces@v1", "me/faces@v1: what is pushed becomes the newest revision; leave @v1 out"),
    ):
        assert sentence in refused(capsys, "push", source, name)
    assert not hub.asked


def test_what_the_hub_answers_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, hub: Hub, trained: Path
) -> None:
    from huggingface_hub import constants

    capsys.readouterr()
    hub.fails = 500
    assert "hf://me/faces: the hub answers with an error (500)" in refused(capsys, "push", trained, NAME)
    hub.fails = None
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "nowhere")
    assert "hf://me/faces: the hub refuses this (401); run `hf auth login`" in refused(capsys, "push", trained, NAME)
    assert not hub.repositories
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "hf://me/faces: HF_HUB_OFFLINE is set" in refused(capsys, "push", trained, NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "hf://me/faces: the hub cannot be reached" in refused(capsys, "push", trained, NAME)


def test_the_package_that_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert 'huggingface_hub; run: pip install "progan[hub]"' in refused(capsys, "push", trained, NAME)


def test_a_folder_with_something_in_it_is_not_written_to(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    capsys.readouterr()
    before = {path: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    for out in (trained, trained / "config.json"):
        assert "is there already and not empty; name a new folder" in refused(
            capsys, "push", trained, NAME, "--out", out
        )
    assert before == {path: path.read_bytes() for path in trained.iterdir() if path.is_file()}
