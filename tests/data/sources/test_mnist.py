import gzip
import hashlib
import struct
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from progan.data.create import create
from progan.data.sources.mnist import FashionMnist, Mnist, MnistRgb
from tests.data.archives import classes, everything, refused
from tests.packages import fashion_mnist

TRAIN, TEST = 30, 12


def idx(values: np.ndarray) -> bytes:
    """The publisher's format: two zeros, 8 for bytes, the number of dimensions, the dimensions, the values."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.tobytes()


def digits(prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Random images whose labels name them: no two are alike."""
    rng = np.random.default_rng(len(prefix))
    count = TRAIN if prefix == "train" else TEST
    return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count).astype(np.uint8)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """All four files, gzipped."""
    folder = tmp_path / "src"
    folder.mkdir()
    for prefix in ("train", "t10k"):
        images, labels = digits(prefix)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def padded(image: np.ndarray) -> np.ndarray:
    """Pixel by pixel: 28x28 in the middle of 32x32 black ones."""
    canvas = np.zeros((32, 32), np.uint8)
    for row in range(28):
        for column in range(28):
            canvas[row + 2, column + 2] = image[row, column]
    return canvas


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_images_and_labels_are_the_publishers(src, out, split):
    data = create(Mnist(src=src, out=out, split=split), quiet=True)
    prefixes = {"train": ["train"], "test": ["t10k"], "all": ["train", "t10k"]}[split]
    images = [padded(image)[None] for prefix in prefixes for image in digits(prefix)[0]]
    labels = [label for prefix in prefixes for label in digits(prefix)[1].tolist()]
    assert np.array_equal(everything(data), np.stack(images))
    assert classes(data) == labels
    assert (data.channels, data.resolution) == (1, 32)
    assert data.label_names == list("0123456789")
    assert data.manifest["source"]["kind"] == "mnist"
    assert data.manifest["source"]["split"] == split


def test_names_and_packing_do_not_matter(src, out, tmp_path):
    first = create(Mnist(src=src, out=out), quiet=True)
    packed = src / "train-images-idx3-ubyte.gz"
    (src / "train-images.idx3-ubyte").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    labels = src / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.decompress(labels.read_bytes()))  # unpacked by a browser that kept the name
    assert create(Mnist(src=src, out=tmp_path / "again"), quiet=True).hash == first.hash


def test_only_the_first_so_many(src, out):
    data = create(Mnist(src=src, out=out, split="all", images=TRAIN + 2), quiet=True)
    expected = np.concatenate([digits("train")[0], digits("t10k")[0][:2]])
    assert np.array_equal(everything(data)[:, 0, 2:30, 2:30], expected)
    assert len(create(Mnist(src=src, out=out.with_name("more"), images=10**6), quiet=True)) == TRAIN


def test_fashion_mnist_differs_in_its_names(src, out):
    data = create(FashionMnist(src=src, out=out), quiet=True)
    assert data.label_names is not None
    assert data.label_names[:2] == ["T-shirt/top", "Trouser"]
    assert data.label_names[9] == "Ankle boot"
    assert data.manifest["source"]["kind"] == "fashion-mnist"
    assert data.manifest["attribution"]["licence"] == "MIT"


def test_rgb_stacks_three_digits(src, out):
    data = create(MnistRgb(src=src, out=out, count=200), quiet=True)
    images, labels = digits("train")
    known = {padded(image).tobytes(): index for index, image in enumerate(images)}
    used = set()
    for picture, number in zip(everything(data), classes(data), strict=True):
        three = [known[channel.tobytes()] for channel in picture]
        used |= set(three)
        assert number == int("".join(str(labels[index]) for index in three))
    assert used == set(range(TRAIN))
    assert data.label_names is not None
    assert (len(data.label_names), data.label_names[7]) == (1000, "007")
    assert data.manifest["source"]["seed"] == 0


def test_an_rgb_image_depends_on_the_seed_and_its_place_alone(src, out, tmp_path):
    many = everything(create(MnistRgb(src=src, out=out, count=20, seed=5), quiet=True))
    few = everything(create(MnistRgb(src=src, out=tmp_path / "few", count=7, seed=5), quiet=True))
    other = everything(create(MnistRgb(src=src, out=tmp_path / "other", count=20, seed=6), quiet=True))
    assert np.array_equal(few, many[:7])
    assert not np.array_equal(other, many)
    images = digits("train")[0]
    for index in (0, 1, 13):  # a generator that starts there makes the same
        picked = np.random.Philox(key=5, counter=index).random_raw(3) % TRAIN
        assert np.array_equal(many[index], np.stack([padded(images[int(i)]) for i in picked]))


def test_rgb_digits_are_drawn_evenly_and_independently(src, out):
    labels = digits("train")[1]
    stream = MnistRgb(src=src, out=out, count=3000).open()
    drawn = np.array([[label // 100, label // 10 % 10, label % 10] for _, label in stream.jobs])
    share = np.bincount(labels, minlength=10) / TRAIN
    for place in range(3):
        counts = np.bincount(drawn[:, place], minlength=10)
        assert np.all(np.abs(counts - 3000 * share) < 5 * np.sqrt(3000 * share) + 1)
    same = np.mean(drawn[:, 0] == drawn[:, 1]), np.mean(drawn[:, 1] == drawn[:, 2])
    assert np.allclose(same, np.sum(share**2), atol=0.04)


def test_missing_files_are_named_with_their_source(src, out):
    (src / "t10k-images-idx3-ubyte.gz").unlink()
    (src / "t10k-labels-idx1-ubyte.gz").unlink()
    message = refused(Mnist(src=src, out=out, split="all"))
    assert f"{src}: lacks t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz" in message
    assert "yann.lecun.com" in message
    assert "zalandoresearch" in refused(FashionMnist(src=src, out=out, split="all"))
    create(Mnist(src=src, out=out), quiet=True)  # which does not need them


def test_no_folder_or_a_file(src, out):
    assert "no such folder" in refused(Mnist(src=src / "nowhere", out=out))
    assert "is a file" in refused(Mnist(src=src / "train-images-idx3-ubyte.gz", out=out))


def test_every_truncation_is_named(src, out):
    path = src / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for size in (0, 1, 9, 20, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert str(path) in refused(Mnist(src=src, out=out))
    raw = gzip.decompress(whole)
    for size in (0, 3, 4, 15, 16, len(raw) - 1):
        path.write_bytes(raw[:size])
        assert str(path) in refused(Mnist(src=src, out=out))
    path.write_bytes(raw + b"\0")
    assert "goes on after the last" in refused(Mnist(src=src, out=out))


def test_damage_inside_a_gzip_file_is_found(src, out):
    path = src / "train-images-idx3-ubyte.gz"
    content = bytearray(gzip.compress(idx(digits("train")[0]), compresslevel=0))  # so that all bytes are pixels
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refused(Mnist(src=src, out=out))


def replace(src: Path, name: str, content: bytes) -> None:
    (src / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(content))


def test_what_does_not_fit_is_refused(src, out):
    images, labels = digits("train")
    source = Mnist(src=src, out=out)
    replace(src, "images-idx3", idx(labels))
    assert "begins with the bytes 00000801, but a file of images with 00000803" in refused(source)
    replace(src, "images-idx3", idx(images.astype(">i4")).replace(b"\0\0\x08", b"\0\0\x0c", 1))
    assert "00000c03" in refused(source)
    replace(src, "images-idx3", idx(images[:, :20, :20].copy()))
    assert "its images are 20x20, but only 28x28" in refused(source)
    replace(src, "images-idx3", b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 28, 28))
    assert "4,294,967,295 images" in refused(source)
    replace(src, "images-idx3", idx(images[:0]))
    assert "0 images" in refused(source)
    replace(src, "images-idx3", idx(images))
    replace(src, "labels-idx1", idx(labels[:-1]))
    assert f"{TRAIN - 1} labels for the {TRAIN} images of train-images-idx3-ubyte.gz" in refused(source)
    replace(src, "labels-idx1", idx(np.where(labels == labels[3], 10, labels).astype(np.uint8)))
    assert f"{src}/train-labels-idx1-ubyte.gz: label 10 is outside 0..9" in refused(source)


def test_numbers_out_of_range(src, out):
    assert "0 images" in refused(Mnist(src=src, out=out, images=0))
    assert "-3 images" in refused(Mnist(src=src, out=out, images=-3))
    assert "0 images" in refused(MnistRgb(src=src, out=out, count=0))
    assert "--count: 1,048,577 is not allowed" in refused(MnistRgb(src=src, out=out, count=2**20 + 1))
    assert "seed -1" in refused(MnistRgb(src=src, out=out, count=1, seed=-1))
    assert "seed" in refused(MnistRgb(src=src, out=out, count=1, seed=2**64))


def test_rgb_has_one_number_of_images():
    assert "images" not in [field.name for field in fields(MnistRgb)]


@pytest.mark.slow
def test_fashion_mnist_whole(out):
    src = fashion_mnist()
    data = create(FashionMnist(src=src, out=out), quiet=True)
    raw = gzip.decompress((src / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((src / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    assert len(data) == 60_000
    assert data.label_counts() == [6_000] * 10
    assert classes(data) == list(labels)
    for index in (0, 1, 31_415, 59_999):
        pixels = raw[16 + 784 * index :][:784]
        image = np.zeros((32, 32), np.uint8)
        for place, value in enumerate(pixels):
            image[2 + place // 28, 2 + place % 28] = value
        assert np.array_equal(data.read(np.array([index]), 32)[0, 0], image)
        for resolution in (16, 8, 4):
            block = 32 // resolution
            means = image.reshape(resolution, block, resolution, block).mean(axis=(1, 3))
            assert np.array_equal(data.read(np.array([index]), resolution)[0, 0], np.rint(means))
    stored = everything(data)[:, 0]
    assert hashlib.sha256(stored[:, 2:30, 2:30].tobytes()).digest() == hashlib.sha256(raw[16:]).digest()
    assert stored.sum(dtype=np.int64) == np.frombuffer(raw[16:], np.uint8).sum(dtype=np.int64)  # the border is black
    data.verify()
