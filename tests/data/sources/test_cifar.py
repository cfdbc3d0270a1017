import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from progan.data.create import create
from progan.data.sources.cifar import Cifar10, Cifar100
from tests.data.archives import classes, everything, refused

FOLDER10, FOLDER100 = "cifar-10-batches-py", "cifar-100-python"
NAMES10 = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


class Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did: a string is bytes."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: bytes | str) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = save_string
    dispatch[str] = save_string


def python2(value: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")  # as the module was called then


def rows(seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def batch(seed: int, **fields: Any) -> dict[bytes, Any]:
    return {b"batch_label": b"a batch", b"data": rows(seed), **{key.encode(): value for key, value in fields.items()}}


def cifar10_files() -> dict[str, bytes]:
    """Batch k has the pixels of seed k and the labels k, 0, 1, 2."""
    files = {
        name: python2(batch(seed, labels=[seed, 0, 1, 2], filenames=[b"a.png"] * 4))
        for seed, name in enumerate([*BATCHES, "test_batch"])
    }
    meta = {b"num_cases_per_batch": 4, b"label_names": NAMES10, b"num_vis": 3072}
    return {"batches.meta": python2(meta), **files, "readme.html": b"<html>"}


def cifar100_files() -> dict[str, bytes]:
    files = {
        name: python2(batch(seed, fine_labels=[99, 0, 1, seed], coarse_labels=[19, seed, 0, 1]))
        for seed, name in enumerate(["train", "test"])
    }
    fine, coarse = [b"fine_%d" % i for i in range(100)], [b"coarse_%d" % i for i in range(20)]
    return {"meta": python2({b"fine_label_names": fine, b"coarse_label_names": coarse}), **files}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def archive(path: Path, inside: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        top = tarfile.TarInfo(inside)
        top.type = tarfile.DIRTYPE
        tar.addfile(top)
        for name, content in reversed(files.items()):  # in no useful order
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return folder(tmp_path / FOLDER10, cifar10_files())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def pictures(*seeds: int) -> np.ndarray:
    """Pixel by pixel: 1,024 bytes of red, then green, then blue, each row by row."""
    images = np.zeros((4 * len(seeds), 3, 32, 32), np.uint8)
    for place, values in enumerate(row for seed in seeds for row in rows(seed)):
        for colour in range(3):
            for y in range(32):
                for x in range(32):
                    images[place, colour, y, x] = values[1024 * colour + 32 * y + x]
    return images


@pytest.mark.parametrize(("split", "seeds"), [("train", range(5)), ("test", [5]), ("all", range(6))])
def test_cifar10(src, out, split, seeds):
    data = create(Cifar10(src=src, out=out, split=split), quiet=True)
    assert np.array_equal(everything(data), pictures(*seeds))
    assert classes(data) == [label for seed in seeds for label in (seed, 0, 1, 2)]
    assert data.label_names == [name.decode() for name in NAMES10]
    assert data.manifest["source"]["kind"] == "cifar10"
    assert data.manifest["source"]["split"] == split


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_cifar100(tmp_path, out, labels):
    src = folder(tmp_path / FOLDER100, cifar100_files())
    data = create(Cifar100(src=src, out=out, split="all", labels=labels), quiet=True)
    assert np.array_equal(everything(data), pictures(0, 1))
    expected = {"fine": [99, 0, 1, 0, 99, 0, 1, 1], "coarse": [19, 0, 0, 1, 19, 1, 0, 1]}[labels]
    assert classes(data) == expected
    assert data.label_names is not None
    assert (len(data.label_names), data.label_names[-1]) == {"fine": (100, "fine_99"), "coarse": (20, "coarse_19")}[
        labels
    ]
    assert data.manifest["source"]["labels"] == labels


def test_the_archive_is_the_folder(src, out, tmp_path, capsys):
    packed = archive(tmp_path / "cifar-10-python.tar.gz", FOLDER10, cifar10_files())
    data = create(Cifar10(src=packed, out=out))
    assert data.hash == create(Cifar10(src=src, out=tmp_path / "again"), quiet=True).hash
    notes = capsys.readouterr().err
    assert "c58f30108f718f92721af3b95e74349a" in notes  # the publisher's, of another archive than the test's
    assert data.manifest["source"]["archive_md5"] in notes
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([packed.name, src.name, "out", "again"])


def test_only_the_first_so_many(src, out):
    data = create(Cifar10(src=src, out=out, images=5), quiet=True)
    assert np.array_equal(everything(data), pictures(0, 1)[:5])
    assert classes(data) == [0, 0, 1, 2, 1]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_python_3_are_read_too(src, out, protocol):
    for seed, name in enumerate(BATCHES):
        content = batch(seed, labels=[seed, 0, 1, 2])
        content[b"data"] = np.asfortranarray(content[b"data"])
        (src / name).write_bytes(pickle.dumps(content, protocol=protocol))
    data = create(Cifar10(src=src, out=out), quiet=True)
    assert np.array_equal(everything(data), pictures(*range(5)))


class Command:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_a_command_is_refused(src, out, tmp_path):
    hostile = pickle.dumps({b"data": Command(tmp_path / "run"), b"labels": []}, protocol=2)
    (src / "data_batch_3").write_bytes(hostile)
    message = refused(Cifar10(src=src, out=out))
    assert f"{src}/data_batch_3: refused, for it asks for 'posix.system'" in message
    packed = archive(tmp_path / "a.tar.gz", FOLDER10, {**cifar10_files(), "data_batch_3": hostile})
    assert "posix.system" in refused(Cifar10(src=packed, out=out))
    assert not (tmp_path / "run").exists()
    pickle.loads(hostile)  # it does run when nobody looks
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize("dtype", ["<u2", "|i1", "|O", "|V1"])
def test_only_bytes_are_pixels(src, out, dtype):
    content = batch(0, labels=[0, 0, 1, 2])
    content[b"data"] = np.zeros((4, 3072), dtype)
    (src / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    assert f'{src}/data_batch_1: "data"' in refused(Cifar10(src=src, out=out))


def test_a_shape_that_the_bytes_do_not_fill_is_refused(src, out):
    shape = b"K\x04M\x00\x0c\x86"  # (4, 3072)
    content = python2(batch(0, labels=[0, 0, 1, 2]))
    assert content.count(shape) == 1
    (src / "data_batch_1").write_bytes(content.replace(shape, shape.replace(b"\x04", b"\x05")))
    assert '"data" is no whole array' in refused(Cifar10(src=src, out=out))


def test_every_truncation_is_named(src, out, tmp_path):
    whole = cifar10_files()["data_batch_2"]
    for size in (0, 1, 2, 40, len(whole) // 2, len(whole) - 1):
        (src / "data_batch_2").write_bytes(whole[:size])
        assert f"{src}/data_batch_2: " in refused(Cifar10(src=src, out=out))
    packed = archive(tmp_path / "a.tar.gz", FOLDER10, cifar10_files())
    whole = packed.read_bytes()
    for size in (0, 1, 9, 300, len(whole) // 3, len(whole) // 2, len(whole) * 3 // 4):
        packed.write_bytes(whole[:size])
        assert str(packed) in refused(Cifar10(src=packed, out=out))


def test_what_does_not_fit_is_refused(src, out):
    source = Cifar10(src=src, out=out)

    def put(content: Any, name: str = "data_batch_1") -> None:
        (src / name).write_bytes(python2(content))

    put(batch(0, labels=[0, 0, 1]))
    assert "3 labels for 4 images" in refused(source)
    put(batch(0, labels=[0, 0, 1, 10]))
    assert "1 labels are outside 0..9" in refused(source)
    put(batch(0, labels=[0, 0, 1, b"x"]))
    assert "outside 0..9" in refused(source)
    put(batch(0, fine_labels=[0, 0, 1, 2]))
    assert 'has no "labels"' in refused(source)
    put({**batch(0, labels=[0, 0, 1, 2]), b"data": rows(0)[:, :3000].copy()})
    assert "[4, 3000], not [N, 3072]" in refused(source)
    put({**batch(0, labels=[0, 0, 1, 2]), b"data": b"pixels"})
    assert '"data" is no whole array' in refused(source)
    put([1, 2])
    assert '"data" is no whole array' in refused(source)
    put(batch(0, labels=[0, 0, 1, 2]))
    put({b"label_names": []}, "batches.meta")
    assert "are no names" in refused(source)
    put({b"label_names": [7]}, "batches.meta")
    assert "are no names" in refused(source)


def test_missing_and_mistaken(src, out, tmp_path):
    (src / "data_batch_4").unlink()
    message = refused(Cifar10(src=src, out=out))
    assert f"{src}: lacks data_batch_4 of CIFAR-10's python version" in message
    assert "cifar-10-python.tar.gz" in message
    assert "no such file or folder" in refused(Cifar10(src=tmp_path / "nowhere", out=out))
    assert "lacks batches.meta, data_batch_1" in refused(Cifar10(src=folder(tmp_path / "empty", {}), out=out))
    (tmp_path / "a.zip").write_bytes(b"PK\3\4")
    assert "cannot be read" in refused(Cifar10(src=tmp_path / "a.zip", out=out))
    other = folder(tmp_path / FOLDER100, cifar100_files())
    packed = archive(tmp_path / "cifar-100-python.tar.gz", FOLDER100, cifar100_files())
    for path in (other, packed):
        assert f"{path}: is CIFAR-100; make its data set with `progan data create cifar100`" in refused(
            Cifar10(src=path, out=out)
        )
    assert "is CIFAR-10; " in refused(Cifar100(src=src, out=out))


def test_a_file_larger_than_any_is_not_read(src, out):
    with (src / "data_batch_1").open("ab") as file:
        file.truncate(2**28 + 1)
    assert "it has more than 268,435,456 bytes" in refused(Cifar10(src=src, out=out))


@pytest.mark.parametrize("images", [0, -1])
def test_no_images(src, out, images):
    assert f"{images} images" in refused(Cifar10(src=src, out=out, images=images))
