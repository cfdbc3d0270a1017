"""`progan project`: what it writes for each picture, of any format and size, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from progan.config import GeneratorConfig
from progan.networks import Generator
from progan.sampling.images import load_generator, one_hot, read_latent, sample, write_images
from progan.sampling.project import distance
from progan.weights import save_network
from tests.command import refused, run
from tests.conftest import MakeData

QUICK = ("--steps", 60, "--starts", 32, "--device", "cpu")


def weights(path: Path, **fields: int) -> Path:
    """A weights file at 8x8, of a network that can grow on to 16x16."""
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(**{"resolution": 16, "fmap_base": 64, "fmap_max": 16, **fields}))
    save_network(path, g, nimg=60, resolution=8, alpha=0.5)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return weights(tmp_path / "g.safetensors")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_everything_is_written(
    source: Path, photo: Path, make_data: MakeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(source, tmp_path / "own", [7], device="cpu")
    own, out = tmp_path / "own" / "seed0007.png", tmp_path / "deep" / "out"
    code, shown, _ = run(capsys, "project", source, photo, own, "--out", out, "--data", make_data().path, *QUICK)
    assert code == 0
    kinds = ("-difference.png", "-picture.png", "-reconstruction.png", ".npz")
    files = [f"{name}{kind}" for name in ("photo", "seed0007") for kind in kinds]
    assert sorted(path.name for path in out.iterdir()) == sorted([*files, "project.json", "project.png"])
    g, stage = load_generator(source)
    rows = json.loads((out / "project.json").read_text())
    for name, row in zip(("photo", "seed0007"), rows, strict=False):
        picture, drawn = pixels(out / f"{name}-picture.png"), pixels(out / f"{name}-reconstruction.png")
        assert picture.shape == drawn.shape == (8, 8, 3)
        z, label = read_latent(out / f"{name}.npz", g.config)
        assert label is None
        assert np.array_equal(sample(g, z[None], **stage)[0].transpose(1, 2, 0), drawn)
        assert np.array_equal(pixels(out / f"{name}-difference.png"), np.abs(picture.astype(int) - drawn))
        assert row["distance"] == pytest.approx(distance(drawn[None], picture[None])[0])
        assert f"{row['distance']:.2f}" in shown
    assert np.array_equal(pixels(out / "seed0007-picture.png"), pixels(own))
    assert rows[1]["distance"] < 2
    assert [row["kind"] for row in rows] == ["picture"] * 2 + ["generated"] * 8 + ["training"] * 8
    assert "mean of 8 generated images" in shown
    assert "mean of 8 training images" in shown
    sheet = pixels(out / "project.png")
    assert sheet.shape == (2 * 128, 3 * 128, 3)
    assert np.array_equal(sheet[128::16, 128:256:16], pixels(out / "seed0007-reconstruction.png"))


@pytest.mark.parametrize(
    ("name", "mode", "size", "channels"),
    [
        ("wide.webp", "RGB", (40, 16), 3),
        ("tiny.png", "RGBA", (3, 2), 3),
        ("four.bmp", "RGB", (4, 4), 3),
        ("deep.tif", "I;16", (9, 9), 1),
        ("palette.gif", "P", (64, 64), 1),
    ],
)
def test_a_picture_of_any_format_and_size(
    tmp_path: Path, name: str, mode: str, size: tuple[int, int], channels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new(mode, size, 0).save(tmp_path / name)
    g = weights(tmp_path / "g.safetensors", channels=channels)
    code, _, _ = run(capsys, "project", g, tmp_path / name, "--out", tmp_path / "out", "--steps", 2, "--starts", 2)
    assert code == 0
    shape = (8, 8) if channels == 1 else (8, 8, 3)
    assert pixels(tmp_path / "out" / f"{Path(name).stem}-reconstruction.png").shape == shape


def test_the_class_is_written_with_the_latent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, picture = weights(tmp_path / "g.safetensors", label_dim=3), tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    how = ("--steps", 2, "--starts", 8, "--label", 0)
    assert run(capsys, "project", source, picture, "--out", tmp_path / "out", *how)[0] == 0
    g, stage = load_generator(source)
    z, label = read_latent(tmp_path / "out" / "a.npz", g.config)
    assert label == 0
    drawn = sample(g, z[None], one_hot([0], 3), **stage)[0].transpose(1, 2, 0)
    assert np.array_equal(drawn, pixels(tmp_path / "out" / "a-reconstruction.png"))
    rows = json.loads((tmp_path / "out" / "project.json").read_text())
    assert {row["class"] for row in rows} == {0}


def test_pictures_of_one_name_are_kept_apart(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / folder / name for folder, name in (("a", "x.png"), ("b", "X.png"), ("c", f"{'y' * 90}.png"))]
    for path, colour in zip(paths, ("red", "green", "blue"), strict=True):
        path.parent.mkdir()
        Image.new("RGB", (8, 8), colour).save(path)
    assert run(capsys, "project", source, *paths, "--out", tmp_path / "out", "--steps", 1, "--starts", 2)[0] == 0
    for name, colour in (("x", (255, 0, 0)), ("X-2", (0, 128, 0)), ("y" * 40, (0, 0, 255))):
        assert tuple(pixels(tmp_path / "out" / f"{name}-picture.png")[0, 0]) == colour


def test_nothing_is_written_over_unasked(
    source: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("photo.npz", "project.json", "photo-picture.png", "config.json"):
        taken = out / name
        taken.write_text("mine")
        sentence = refused(capsys, "project", source, photo, "--out", out, *QUICK)
        assert f"--out: {taken} is there already; choose another name, or pass --overwrite" in sentence
        assert [path.read_text() for path in out.iterdir()] == ["mine"]
        taken.unlink()
    (out / "photo.npz").write_text("of before")
    assert run(capsys, "project", source, photo, "--out", out, "--overwrite", "--steps", 1, "--starts", 2)[0] == 0
    assert read_latent(out / "photo.npz", load_generator(source)[0].config)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{place}", "{photo}"], "holds no generator yet; give a run folder"),
        (["{source}"], "IMAGES: there are none; give at least one picture"),
        (["{source}", "{source}"], "g.safetensors: cannot be read as a picture (not a picture that Pillow can read)"),
        (["{source}", "{photo}", "{place}/no.png"], "no.png: cannot be read as a picture (No such file"),
        (["{source}", "{place}"], "cannot be read as a picture (it is a folder, no plain file); leave it out"),
        (["{source}", "{photo}", "--starts", "0"], "--starts: 0 is not allowed; use 1 to 100,000"),
        (["{source}", "{photo}", "--steps", "-1"], "--steps: -1 is not allowed; use 1 to 100,000"),
        (["{source}", "{photo}", "--label", "0"], "--label: this network has no labels"),
        (["{place}/labelled.safetensors", "{photo}", "--label", "3"], "--label: 3 is not a class of this network"),
        (["{place}/labelled.safetensors", "{photo}", "--label", "-1"], "use 0 to 2"),
        (["{place}/two.safetensors", "{photo}"], "makes images of 2 channels; give a network of gray or RGB images"),
        (["{source}", "{photo}", "--data", "{place}/nothing"], "nothing: no such folder"),
        (["{source}", "{photo}", "--data", "{place}/data"], "holds no images of 8x8 pixels and 3 channels"),
        (["{source}", "{photo}", "--device", "toaster"], "device: 'toaster' is not on this machine"),
    ],
)
def test_mistakes_get_one_sentence(
    source: Path,
    photo: Path,
    make_data: MakeData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    weights(tmp_path / "labelled.safetensors", label_dim=3)
    weights(tmp_path / "two.safetensors", channels=2)
    make_data(channels=1)
    words = [word.format(place=tmp_path, source=source, photo=photo) for word in words]
    assert sentence in refused(capsys, "project", *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_pictures_than_one_sheet_holds(
    source: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("progan.commands.project.MOST_PIXELS", 3 * 128**2)
    sentence = refused(capsys, "project", source, photo, photo, "--out", tmp_path / "out", *QUICK)
    assert "IMAGES: project.png has no room for 2; give fewer at a time" in sentence
    assert run(capsys, "project", source, photo, "--out", tmp_path / "out", "--steps", 1, "--starts", 2)[0] == 0
