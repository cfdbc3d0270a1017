"""The digit classifier: what it learns from, what it is tried on, and when it is trained anew."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import progan.studies.modes.classifier
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.studies.modes.classifier import (
    MODE_NAMES,
    DigitClassifier,
    Recipe,
    classifier_for,
    distinct_digits,
    read_classifier,
)
from progan.support.errors import DataError

QUICK = Recipe(images=10_000, steps=40, batch=32, lr=5e-3)
POOL = 150


def fake_digits(seed: int = 0, count: int = POOL) -> tuple[np.ndarray, np.ndarray]:
    """Digit d as a bright bar on noise, in column 3 d + 1: uint8 [count, 32, 32] and the digits."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    pixels = rng.integers(0, 90, (count, 32, 32), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[4:28, 3 * label + 1 : 3 * label + 4] += 150
    return pixels, labels


def write_stacks(path: Path, count: int, seed: int = 0) -> ImagePyramid:
    """An MNIST-RGB data set: each image three of the same few digits, red first."""
    pixels, labels = fake_digits(seed)
    picked = np.random.default_rng(seed).integers(0, len(pixels), (count, 3))
    with PyramidWriter(path, resolution=32, channels=3, label_names=MODE_NAMES, source={"kind": "test"}) as writer:
        for three in picked:
            writer.append(box_pyramid(pixels[three]), int(labels[three] @ [100, 10, 1]))
    return ImagePyramid.open(path)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> ImagePyramid:
    """400 images, 1,200 channels, of at most 150 different digits; only to be read."""
    return write_stacks(tmp_path_factory.mktemp("digits") / "data", 400)


def no_training(*args: Any) -> None:
    raise AssertionError("trained anew")


def test_it_names_digits_that_it_never_saw(stacks: ImagePyramid, tmp_path: Path) -> None:
    trained = classifier_for(stacks, tmp_path / "c", QUICK)
    assert trained.accuracy > 0.9
    pixels, labels = fake_digits(seed=1)
    found = trained.digits(pixels.reshape(-1, 3, 32, 32))
    assert found.shape == (POOL // 3, 3)
    assert (found == labels.reshape(-1, 3)).mean() > 0.95


def test_every_digit_counts_once_with_its_own_label(stacks: ImagePyramid) -> None:
    pixels, labels, held_out = distinct_digits(stacks, 10_000)
    originals = dict(zip((p.tobytes() for p in fake_digits()[0]), fake_digits()[1].tolist(), strict=True))
    stacked = {p.tobytes() for p in stacks.read(np.arange(400), 32).reshape(-1, 32, 32)}
    assert [originals[p.tobytes()] for p in pixels] == labels.tolist()
    assert {p.tobytes() for p in pixels} == stacked
    assert len(pixels) == len(stacked) < 1200
    assert 0.02 < held_out.mean() < 0.25  # a tenth is meant


def test_what_is_held_out_does_not_depend_on_how_much_is_read(stacks: ImagePyramid) -> None:
    def held(images: int) -> dict[bytes, bool]:
        pixels, _, held_out = distinct_digits(stacks, images)
        return dict(zip((p.tobytes() for p in pixels), held_out.tolist(), strict=True))

    few, all_of_them = held(40), held(400)
    assert len(few) < len(all_of_them)
    assert few.items() <= all_of_them.items()


def test_no_copy_of_a_held_out_digit_is_trained_on(
    stacks: ImagePyramid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[bytes] = set()
    forward = DigitClassifier.forward

    def watched(self: DigitClassifier, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            seen.update(image.numpy().tobytes() for image in images)
        return forward(self, images)

    monkeypatch.setattr(DigitClassifier, "forward", watched)
    trained = classifier_for(stacks, tmp_path / "c", QUICK)
    pixels, _, held_out = distinct_digits(stacks, 10_000)
    assert seen == {p.tobytes() for p in pixels[~held_out]}
    assert trained.held_out == held_out.sum() > 0


def test_accuracy_is_the_share_of_held_out_digits_named_rightly(stacks: ImagePyramid, tmp_path: Path) -> None:
    trained = classifier_for(stacks, tmp_path / "c", replace(QUICK, steps=10, lr=1e-3))  # too short to be perfect
    pixels, labels, held_out = distinct_digits(stacks, 10_000)
    right = [trained.digits(p[None, None]).item() == label for p, label in zip(pixels, labels, strict=True)]
    assert trained.accuracy == np.array(right)[held_out].mean() < 1
    assert trained.accuracy != np.mean(right)


def test_it_is_kept_for_its_data_and_recipe(
    stacks: ImagePyramid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c"
    first = classifier_for(stacks, path, QUICK)
    other = classifier_for(write_stacks(tmp_path / "other", 100, seed=2), path, QUICK)
    assert other.hash != first.hash
    again = classifier_for(stacks, path, QUICK)
    assert again.hash == first.hash  # the same weights, to the bit
    assert classifier_for(stacks, path, replace(QUICK, seed=1)).hash != first.hash
    path.write_bytes(path.read_bytes()[:5000])
    assert classifier_for(stacks, path, QUICK).hash == first.hash
    with monkeypatch.context() as patch:
        patch.setattr(progan.studies.modes.classifier, "_train", no_training)
        kept = classifier_for(stacks, path, QUICK)
        assert (kept.accuracy, kept.held_out, kept.hash) == (first.accuracy, first.held_out, first.hash)
        with pytest.raises(AssertionError, match="trained anew"):
            classifier_for(stacks, path, replace(QUICK, steps=3))
    images = stacks.read(np.arange(50), 32)
    assert np.array_equal(kept.digits(images), first.digits(images))
    assert not [name for name in os.listdir(tmp_path) if "partial" in name]


def test_training_leaves_the_global_generator_alone(stacks: ImagePyramid, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    classifier_for(stacks, tmp_path / "c", replace(QUICK, steps=1))
    assert torch.equal(torch.rand(1), expected)


def test_a_file_that_is_no_classifier_is_named(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"something else")
    for path in (tmp_path / "c", tmp_path / "none"):
        with pytest.raises(DataError, match=f"{path}: not a whole digit classifier; run the command again"):
            read_classifier(path)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"resolution": 16}, "holds 16x16 images with 3 channels and 1,000 labels"),
        ({"resolution": 64}, "holds 64x64 images with 3 channels and 1,000 labels"),
        ({"channels": 1}, "holds 32x32 images with 1 channel and 1,000 labels"),
        ({"labels": 0}, "holds 32x32 images with 3 channels and 0 labels"),
        ({"labels": 1000}, "and the labels 000 to 999; make such a data set with `progan data create mnist-rgb`"),
        ({}, "its 3 images show too few different digits"),
    ],
)
def test_another_data_set_is_refused(make_data: Any, tmp_path: Path, what: dict[str, int], sentence: str) -> None:
    if what.get("labels") is not None:
        data = make_data(count=3, resolution=32, **what)
    else:
        shape = {"resolution": 32, "channels": 3} | what
        with PyramidWriter(tmp_path / "data", **shape, label_names=MODE_NAMES, source={}) as writer:  # type: ignore[arg-type]
            for mode in (12, 345, 678):
                writer.append(box_pyramid(np.full((shape["channels"], *[shape["resolution"]] * 2), 7, np.uint8)), mode)
        data = ImagePyramid.open(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        classifier_for(data, tmp_path / "c", QUICK)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c").exists()
