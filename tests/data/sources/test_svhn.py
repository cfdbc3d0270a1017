import sys
from pathlib import Path

import numpy as np
import pytest

from progan.data.create import create
from progan.data.sources.svhn import Svhn
from tests.data.archives import classes, everything, refused

scipy = pytest.importorskip("scipy", reason="SVHN's files need scipy")

COUNTS = {"train": 12, "test": 5, "extra": 7}
PARTS = list(COUNTS)


def digits(part: str) -> tuple[np.ndarray, np.ndarray]:
    """X, uint8 [32, 32, 3, N], and y, uint8 [N, 1] of 1 to 10."""
    rng = np.random.default_rng(PARTS.index(part))
    count = COUNTS[part]
    labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
    return rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8), labels


def save(path: Path, **variables: np.ndarray) -> None:
    scipy.io.savemat(path, variables, do_compression=True)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    for part in PARTS:
        pixels, labels = digits(part)
        save(folder / f"{part}_32x32.mat", X=pixels, y=labels)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def pictures(part: str) -> np.ndarray:
    """Pixel by pixel, from row, column, colour, image to image, colour, row, column."""
    pixels = digits(part)[0]
    images = np.zeros((COUNTS[part], 3, 32, 32), np.uint8)
    for image in range(COUNTS[part]):
        for colour in range(3):
            for row in range(32):
                for column in range(32):
                    images[image, colour, row, column] = pixels[row, column, colour, image]
    return images


@pytest.mark.parametrize("split", ["train", "test", "extra", "all"])
def test_images_and_labels_are_the_publishers(src, out, split):
    data = create(Svhn(src=src, out=out, split=split), quiet=True)
    parts = PARTS if split == "all" else [split]
    assert np.array_equal(everything(data), np.concatenate([pictures(part) for part in parts]))
    published = [int(label) for part in parts for label in digits(part)[1][:, 0]]
    assert classes(data) == [0 if label == 10 else label for label in published]
    assert data.label_names == list("0123456789")
    assert data.manifest["source"]["kind"] == "svhn"
    assert data.manifest["source"]["split"] == split
    assert "non-commercial" in data.manifest["attribution"]["licence"]


def test_only_the_first_so_many(src, out):
    data = create(Svhn(src=src, out=out, split="all", images=14), quiet=True)
    assert np.array_equal(everything(data), np.concatenate([pictures("train"), pictures("test")[:2]]))


def test_missing_files(src, out):
    (src / "extra_32x32.mat").unlink()
    message = refused(Svhn(src=src, out=out, split="all"))
    assert f"{src}: lacks extra_32x32.mat; download them from http://ufldl.stanford.edu/housenumbers" in message
    create(Svhn(src=src, out=out), quiet=True)  # which does not need it
    assert "no such folder" in refused(Svhn(src=src / "nowhere", out=out.with_name("2")))
    assert "is a file" in refused(Svhn(src=src / "train_32x32.mat", out=out.with_name("2")))


@pytest.mark.parametrize("compressed", [True, False])
def test_every_truncation_is_named(src, out, compressed):
    path = src / "train_32x32.mat"
    pixels, labels = digits("train")
    scipy.io.savemat(path, {"y": labels, "X": pixels}, do_compression=compressed)  # X last, so that its headers stay
    whole = path.read_bytes()
    for size in (0, 3, 60, 128, 140, 300, 1000, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert str(path) in refused(Svhn(src=src, out=out))
    scipy.io.savemat(path, {"X": pixels, "y": labels}, do_compression=compressed)
    whole = path.read_bytes()
    for size in (140, 1000, len(whole) // 2, len(whole) - 100, len(whole) - 10):
        path.write_bytes(whole[:size])
        assert str(path) in refused(Svhn(src=src, out=out))


def test_damage_is_found(src, out):
    path = src / "train_32x32.mat"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert str(path) in refused(Svhn(src=src, out=out))


def test_what_does_not_fit_is_refused(src, out):
    path, source = src / "train_32x32.mat", Svhn(src=src, out=out)
    pixels, labels = digits("train")
    save(path, X=pixels)
    assert "holds no X and y" in refused(source)
    save(path, X=pixels, y=labels[1:])
    assert "11 labels for 12 images" in refused(source)
    for wrong in (0, 11):
        save(path, X=pixels, y=np.where(labels == 3, wrong, labels))
        assert "outside 1..10" in refused(source)
    save(path, X=pixels, y=labels.astype(float) + 0.5)
    assert "outside 1..10" in refused(source)
    save(path, X=pixels, y=scipy.sparse.csc_matrix(labels))
    assert "y is no plain array of numbers" in refused(source)
    save(path, X=pixels, y=np.array([{"digit": 1}] * 12))
    assert "y is no plain array of numbers" in refused(source)
    save(path, X=pixels[:16], y=labels)
    assert "X is uint8 [16, 32, 3, 12], not uint8 [32, 32, 3, N]" in refused(source)
    save(path, X=pixels.astype(float), y=labels)
    assert "X is double" in refused(source)
    save(path, X=pixels.transpose(3, 0, 1, 2), y=labels)
    assert "X is uint8 [12, 32, 32, 3]" in refused(source)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(1000))
    assert "is no whole MATLAB 5 file" in refused(source)
    path.write_text("<html>404</html>" * 20)
    assert "is no whole MATLAB 5 file" in refused(source)


@pytest.mark.parametrize("images", [0, -1])
def test_no_images(src, out, images):
    assert f"{images} images" in refused(Svhn(src=src, out=out, images=images))


def test_scipy_is_asked_for(src, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert 'pip install "progan[sources]"' in refused(Svhn(src=src, out=out))
