"""A seed is an image: the same one whatever the batch, in a file of its name."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progan.config import GeneratorConfig
from progan.images import nearest_up
from progan.networks import Generator
from progan.sampling.images import (
    load_generator,
    one_hot,
    read_latent,
    sample,
    sample_batches,
    save_latent,
    seed_latents,
    write_images,
)
from progan.support.errors import ConfigError, DataError, RunError
from progan.weights import save_network


def generator(**fields: Any) -> Generator:
    torch.manual_seed(0)
    return Generator(GeneratorConfig(**{"resolution": 16, "fmap_base": 32, "fmap_max": 16, **fields}))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A weights file without labels, in mid-fade to 8x8."""
    save_network(tmp_path / "g.safetensors", generator(), nimg=60, resolution=8, alpha=0.5)
    return tmp_path / "g.safetensors"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A weights file with three classes, fully grown."""
    save_network(tmp_path / "labelled.safetensors", generator(label_dim=3), nimg=9, resolution=16, alpha=1.0)
    return tmp_path / "labelled.safetensors"


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image).astype(int)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("batch", [1, 2, 5, 7])
def test_a_seed_is_the_same_image_in_every_batch_and_on_every_device(batch: int, device: torch.device) -> None:
    g, seeds = generator(), [3, 1, 4, 159, 2, 65, 35]
    alone = np.concatenate([sample(g, seed_latents([seed], 16), batch=1) for seed in seeds])
    together = sample(g.to(device), seed_latents(seeds, 16), batch=batch)
    assert together.shape == (7, 3, 16, 16)
    assert together.dtype == np.uint8
    assert np.abs(together.astype(int) - alone).max() <= 1  # of 255
    assert np.abs(together[0].astype(int) - together[1]).max() > 10


def test_labels_of_many_classes_take_the_memory_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "eye")  # of 10,000 classes 400 MB
    labels = one_hot([2, 9_999], 10_000)
    assert labels is not None
    assert labels.dtype == torch.float32
    assert labels.nonzero().tolist() == [[0, 2], [1, 9_999]]


def test_a_weights_file_gives_the_generator_as_far_as_it_has_grown(weights: Path) -> None:
    g, stage = load_generator(str(weights))
    assert stage == {"resolution": 8, "alpha": 0.5}
    assert not g.training
    assert not any(parameter.requires_grad for parameter in g.parameters())
    write_images(weights, weights.parent / "out", [7])
    image = sample(g, seed_latents([7], 16), **stage)[0].transpose(1, 2, 0)
    assert np.array_equal(image, picture(weights.parent / "out" / "seed0007.png"))


def test_a_batch_holds_no_more_pixels_than_fit() -> None:
    g = generator()
    assert [len(images) for images in sample_batches(g, seed_latents(range(150), 16))] == [64, 64, 22]


def test_full_size_repeats_pixels() -> None:
    g, z = generator(), seed_latents([0, 1], 16)
    small = sample(g, z, resolution=8, alpha=0.5)
    big = sample(g, z, resolution=8, alpha=0.5, full_size=True)
    assert small.shape[-1] == 8
    assert np.array_equal(big, nearest_up(torch.from_numpy(small)).numpy())


def test_each_seed_becomes_a_png_of_its_name(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert write_images(weights, out, [0, 7, 12345], device="cpu") == 3
    assert names(out) == ["seed0000.png", "seed0007.png", "seed12345.png"]
    wanted = sample(generator(), seed_latents([7], 16), resolution=8, alpha=0.5)[0].transpose(1, 2, 0)
    assert np.abs(picture(out / "seed0007.png") - wanted).max() <= 1


def test_the_pictures_do_not_depend_on_the_other_seeds(weights: Path, tmp_path: Path) -> None:
    write_images(weights, tmp_path / "one", [5], device="cpu")
    write_images(weights, tmp_path / "many", range(10), device="cpu")
    assert np.abs(picture(tmp_path / "one" / "seed0005.png") - picture(tmp_path / "many" / "seed0005.png")).max() <= 1


def test_the_grid_shows_the_same_pictures_row_by_row(weights: Path, tmp_path: Path) -> None:
    write_images(weights, tmp_path / "out", range(5), grid=(3, 2), device="cpu")
    sheet = picture(tmp_path / "out" / "grid.png")
    assert sheet.shape == (16, 24, 3)
    for seed in range(5):
        row, column = divmod(seed, 3)
        cell = sheet[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert np.array_equal(cell, picture(tmp_path / "out" / f"seed000{seed}.png"))
    assert not sheet[8:, 16:].any()


def test_a_grid_too_large_for_a_picture_is_refused_before_any_is_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("progan.sampling.images.MOST_GRID_PIXELS", 6 * 8 * 8)
    write_images(weights, tmp_path / "fits", [0], grid=(3, 2), device="cpu")
    with pytest.raises(ConfigError, match=r"--grid: 7x1 at this resolution is over 2\^29 pixels"):
        write_images(weights, tmp_path / "out", [0], grid=(7, 1), device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "resolution", "alpha"),
    [
        ({}, 8, 0.5),  # as far as it has grown
        ({"alpha": 1.0}, 8, 1.0),
        ({"resolution": 8}, 8, 0.5),
        ({"resolution": 4}, 4, 1.0),
        ({"resolution": 16}, 16, 1.0),
        ({"resolution": 16, "alpha": 0.25}, 16, 0.25),
    ],
)
def test_resolution_and_alpha_are_those_asked_for(
    weights: Path, tmp_path: Path, asked: dict[str, Any], resolution: int, alpha: float
) -> None:
    write_images(weights, tmp_path / "out", [0], device="cpu", **asked)
    wanted = sample(generator(), seed_latents([0], 16), resolution=resolution, alpha=alpha)[0].transpose(1, 2, 0)
    assert np.array_equal(picture(tmp_path / "out" / "seed0000.png"), wanted)


def test_every_seed_and_class_asked_for(labelled: Path, tmp_path: Path) -> None:
    assert write_images(labelled, tmp_path / "out", [3, 4], classes=[0, 2], device="cpu") == 4
    assert names(tmp_path / "out") == [f"seed000{seed}-class{label}.png" for seed in (3, 4) for label in (0, 2)]
    g = generator(label_dim=3)
    wanted = sample(g, seed_latents([4], 16), one_hot([2], 3))[0].transpose(1, 2, 0)
    assert np.abs(picture(tmp_path / "out" / "seed0004-class2.png") - wanted).max() <= 1
    assert not np.array_equal(wanted, picture(tmp_path / "out" / "seed0004-class0.png"))


def test_without_classes_the_seed_decides(labelled: Path, tmp_path: Path) -> None:
    write_images(labelled, tmp_path / "out", [3, 4, 5], device="cpu")
    write_images(labelled, tmp_path / "each", [3, 4, 5], classes=[0, 1, 2], device="cpu")
    for seed, label in ((3, 0), (4, 1), (5, 2)):
        ours = picture(tmp_path / "out" / f"seed000{seed}.png")
        assert np.abs(ours - picture(tmp_path / "each" / f"seed000{seed}-class{label}.png")).max() <= 1


def test_a_run_folder_gives_its_final_generator_or_its_newest(weights: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "snapshots").mkdir(parents=True)
    for name, resolution in (("snapshots/generator-000000900", 4), ("snapshots/generator-000010000", 8)):
        save_network(run / f"{name}.safetensors", generator(), resolution=resolution, alpha=1.0)
    write_images(run, tmp_path / "newest", [0], device="cpu")
    assert picture(tmp_path / "newest" / "seed0000.png").shape == (8, 8, 3)
    save_network(run / "generator.safetensors", generator(), resolution=16, alpha=1.0)
    write_images(run, tmp_path / "final", [0], device="cpu")
    assert picture(tmp_path / "final" / "seed0000.png").shape == (16, 16, 3)


def empty(path: Path) -> Path:
    path.mkdir()
    return path


def text(path: Path) -> Path:
    path.write_text("hello")
    return path


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"grid": (1, 2)}, "--grid: 1x2 is too small for 3 images"),
        ({"classes": [0]}, "--labels: this network has no labels"),
        ({"resolution": 32}, "resolution: 32 is not one of 4, 8, 16"),
        ({"resolution": 6}, "resolution: 6 is not one of 4, 8, 16"),
        ({"alpha": 1.5}, "alpha: 1.5 is not allowed"),
        ({"alpha": -0.1}, "alpha: -0.1 is not allowed"),
        ({"device": "cuda:77"}, "device: 'cuda:77' is not on this machine"),
        ({"device": "toaster"}, "device: 'toaster' is not on this machine"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    weights: Path, tmp_path: Path, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        write_images(weights, tmp_path / "out", [0, 1, 2], **{"device": "cpu", **asked})
    assert not (tmp_path / "out").exists()


def test_an_unknown_class_is_refused(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--labels: 3 is not a class of this network; use 0-2"):
        write_images(labelled, tmp_path / "out", [0], classes=[0, 3], device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path, "no such file"),
        (empty, "holds no generator yet"),
        (text, "cannot be read as the weights of a progan generator"),
    ],
)
def test_a_source_without_a_generator_is_named(tmp_path: Path, make: Any, sentence: str) -> None:
    with pytest.raises(RunError, match=f"source: {sentence}"):
        write_images(make(tmp_path / "source"), tmp_path / "out", [0], device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("label", "classes"), [(None, 0), (0, 3), (2, 3)])
def test_a_latent_in_a_file(label: int | None, classes: int, tmp_path: Path) -> None:
    z = seed_latents([4], 16)[0]
    save_latent(tmp_path / "a.npz", z, label)
    found, of = read_latent(tmp_path / "a.npz", GeneratorConfig(resolution=8, latent_dim=16, label_dim=classes))
    assert torch.equal(found, z)
    assert of == label
    assert (tmp_path / "a.npz").stat().st_size < 4000


def npz(**arrays: Any) -> bytes:
    memory = io.BytesIO()
    np.savez(memory, **arrays)
    return memory.getvalue()


def bomb() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.npy", npz(z=np.zeros(2**20, np.float32)))
    return memory.getvalue()


Z, LABEL = np.zeros(16, np.float32), np.array(1)
DAMAGED = "cannot be read as a latent"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", DAMAGED),
        (b"hello", DAMAGED),
        (npz(z=Z), DAMAGED),
        (npz(z=np.array([None] * 16), label=LABEL), "Object arrays cannot be loaded"),  # a pickle could run anything
        (npz(z=Z.astype(complex), label=LABEL), "it holds no float32 z and no label"),
        (npz(z=Z[None], label=LABEL), "it holds no float32 z and no label"),
        (npz(z=np.full(16, np.nan, np.float32), label=LABEL), "it holds no float32 z and no label"),
        (npz(z=Z, label=np.array("a")), "it holds no float32 z and no label"),
        (npz(z=Z, label=np.array([1])), "it holds no float32 z and no label"),
        (bytes(2**20 + 1), "it has more than 1,048,576 bytes"),
        (bomb(), "it unpacks to more than a latent has"),
        (npz(z=Z[1:], label=LABEL), "a latent of 15 numbers and class 1 is another network's, for this one takes 16"),
        (npz(z=Z, label=np.array(3)), "class 3 is another network's, for this one takes 16 and 0 to 2; project the"),
        (npz(z=Z, label=np.array(-1)), "class -1 is another network's"),
    ],
)
def test_a_file_that_holds_no_latent_of_this_network(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_latent(tmp_path / "a.npz", GeneratorConfig(resolution=8, latent_dim=16, label_dim=3))
