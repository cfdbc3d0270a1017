import errno
import io
import json
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progan.data.create import create
from progan.data.formats.export import export, folder_names
from progan.data.sources.folder import Folder
from progan.data.sources.tfrecords import Tfrecords
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.support.errors import DataError

GOLDEN = Path(__file__).parents[2] / "golden" / "tfrecords"
FORMATS = ["tfrecords", "folder", "zip"]


def write(out: Path, pixels: np.ndarray, names: list[str] | None = None, **options) -> ImagePyramid:
    """Image i has label i modulo the number of names."""
    with PyramidWriter(
        out,
        resolution=pixels.shape[-1],
        channels=pixels.shape[1],
        label_names=names,
        source={"kind": "test"},
        **options,
    ) as writer:
        for index, image in enumerate(pixels):
            writer.append(box_pyramid(image), None if names is None else index % len(names))
    return ImagePyramid.open(out)


def noise(count: int = 5, channels: int = 3, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, side, side), np.uint8)


def images(data: ImagePyramid, resolution: int) -> np.ndarray:
    return data.read(np.arange(len(data)), resolution)


def labels(data: ImagePyramid) -> list[int]:
    return data.read_labels(np.arange(len(data))).argmax(1).tolist()


def back(source) -> ImagePyramid:
    return create(source, quiet=True)


def save(data: ImagePyramid, out: Path, to: str, **options) -> Path:
    return export(data, out, to, **{"quiet": True, "workers": 1, **options})


@pytest.fixture
def golden(tmp_path):
    return back(Tfrecords(src=GOLDEN, out=tmp_path / "golden", workers=1))


@pytest.mark.parametrize("workers", [1, 2])
def test_tfrecords_are_the_official_files_byte_for_byte(golden, tmp_path, workers):
    out = save(golden, tmp_path / "some/where/faces", "tfrecords", workers=workers)
    assert out == tmp_path / "some/where/faces"
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in GOLDEN.iterdir())
    for path in GOLDEN.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [4, 64])
@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_tfrecords_come_back(tmp_path, channels, side, names):
    data = write(tmp_path / "d", noise(7, channels, side), names)
    save(data, tmp_path / "t", "tfrecords")
    again = back(Tfrecords(src=tmp_path / "t", out=tmp_path / "again", workers=1))
    assert again.hash == data.hash  # every level and label
    assert again.label_names == (names and ["0", "1", "2"])


@pytest.mark.parametrize(("to", "channels"), [("folder", 3), ("zip", 1)])
def test_pngs_come_back(tmp_path, channels, to):
    pixels = noise(1003, channels, 4)
    data = write(tmp_path / "d", pixels)
    out = save(data, tmp_path / "x.zip", to)
    again = back(Folder(src=out, out=tmp_path / "again", channels=channels, workers=1))
    assert again.hash == data.hash


@pytest.mark.parametrize("how", ["folders", "json"])
def test_a_folder_comes_back_with_its_labels(tmp_path, how):
    names = ["cat", "dog", "emu"]
    data = write(tmp_path / "d", noise(11), names)
    out = save(data, tmp_path / "x", "folder")
    again = back(Folder(src=out, out=tmp_path / "again", labels=how, workers=1))
    order = sorted(range(11), key=lambda index: (index % 3, index))  # that of the files' names
    assert again.label_names == names
    assert labels(again) == [index % 3 for index in order]
    for r in data.resolutions:
        assert np.array_equal(images(again, r), images(data, r)[order])


def test_a_zip_comes_back_with_its_labels_and_its_order(tmp_path):
    names = ["cat", "dog", "emu"]
    data = write(tmp_path / "d", noise(11), names)
    again = back(Folder(src=save(data, tmp_path / "x.zip", "zip"), out=tmp_path / "again", labels="json", workers=1))
    assert again.label_names == names
    assert again.hash == data.hash


@pytest.mark.parametrize("to", ["folder", "zip"])
@pytest.mark.parametrize("names", [None, ["b/b", "a"]])
def test_stylegan_can_read_it(tmp_path, to, names):
    """What its loader does: sort the names of all files that are pictures, look each up in dataset.json at the root."""
    pixels = noise(5, 1)
    credits = {"author": "somebody"}
    out = save(write(tmp_path / "d", pixels, names, attribution=credits), tmp_path / "x.zip", to)
    if to == "zip":
        with zipfile.ZipFile(out) as archive:
            assert archive.testzip() is None
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
            files = {name: archive.read(name) for name in archive.namelist()}
    else:
        files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    about = json.loads(files.pop("dataset.json"))
    assert about["attribution"] == credits
    found = sorted(files)
    order = list(range(5))
    if names is None or to == "zip":
        assert found == [f"00000/img0000000{index}.png" for index in range(5)]
        assert about["labels"] == (names and [[name, index % 2] for index, name in enumerate(found)])
    else:
        assert found == ["a/img00000001.png", "a/img00000003.png"] + [f"b_b/img0000000{i}.png" for i in (0, 2, 4)]
        assert [dict(about["labels"])[name] for name in found] == [1, 1, 0, 0, 0]
        assert about["label_names"] == names
        order = [1, 3, 0, 2, 4]
    for name, index in zip(found, order, strict=True):
        picture = Image.open(io.BytesIO(files[name]))
        assert (picture.format, picture.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(picture), pixels[index, 0])


def test_names_of_classes_as_folders():
    names = ["cat", "Cat", "a/b", "a\\b", "..", "", ".hidden", "naïve œuf", "tab\t\n", "CAT-1", "x" * 300, "a:b", "1. "]
    folders = folder_names(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert folder == folder.strip(". ")
        assert folder
        assert not set(folder) & set('/\\:*?"<>|\0\t\n')
        assert len(folder.encode()) < 255
    assert folders[:4] == ["cat", "Cat-1", "a_b", "a_b-3"]
    assert folders[7] == "naïve œuf"
    assert folder_names(["a", "b c", "7"]) == ["a", "b c", "7"]


def test_the_same_zip_every_time(tmp_path):
    data = write(tmp_path / "d", noise())
    first, second = (save(data, tmp_path / f"{name}.zip", "zip").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_there_is_never_replaced(tmp_path, to):
    data = write(tmp_path / "d", noise())
    (tmp_path / "full.zip").mkdir()
    (tmp_path / "full.zip/notes.txt").write_text("mine")
    (tmp_path / "file.zip").write_text("mine")
    with pytest.raises(DataError, match=r"full\.zip: (already holds files|is there already)"):
        save(data, tmp_path / "full.zip", to)
    with pytest.raises(DataError, match=r"file\.zip: is there already"):
        save(data, tmp_path / "file.zip", to)
    assert (tmp_path / "full.zip/notes.txt").read_text() == (tmp_path / "file.zip").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_an_empty_folder_is_taken_and_a_zip_needs_its_name(tmp_path):
    data = write(tmp_path / "d", noise())
    (tmp_path / "empty").mkdir()
    save(data, tmp_path / "empty", "tfrecords")
    assert (tmp_path / "empty/empty-r03.tfrecords").exists()
    with pytest.raises(DataError, match=r"choose x\.zip"):
        save(data, tmp_path / "x", "zip")


@pytest.mark.parametrize("to", FORMATS)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, to):
    data = write(tmp_path / "d", noise(20, 3, 16), ["a", "b"])
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, old[1]))  # below one picture
    try:
        with pytest.raises(DataError, match=r"x\.zip: cannot be written \(File too large\); free some space") as caught:
            save(data, tmp_path / "x.zip", to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("to", FORMATS)
def test_a_place_that_cannot_be_is_one_sentence(tmp_path, to):
    data = write(tmp_path / "d", noise())
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "x.zip", Path("/proc/x.zip")):
        with pytest.raises(DataError, match=r"x\.zip: cannot be written \(.*\); free some space or choose another"):
            save(data, out, to)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("to", FORMATS)
def test_a_full_disk_at_the_very_end(tmp_path, to, monkeypatch):
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    data = write(tmp_path / "d", noise())
    monkeypatch.setattr(os, "sync", fail)
    with pytest.raises(DataError, match="No space left on device"):
        save(data, tmp_path / "x.zip", to)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("to", FORMATS)
def test_stopped_in_between_leaves_nothing(tmp_path, to, monkeypatch):
    data = write(tmp_path / "d", noise())
    read = ImagePyramid.read

    def stop(self, indices, resolution):
        if indices[0] == 3:
            raise KeyboardInterrupt
        return read(self, indices, resolution)

    monkeypatch.setattr(ImagePyramid, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        save(data, tmp_path / "x.zip", to)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_progress_is_told_unless_quiet(tmp_path, capsys):
    data = write(tmp_path / "d", noise())
    save(data, tmp_path / "a", "folder", quiet=False)
    assert "5 of 5 images" in capsys.readouterr().err
    save(data, tmp_path / "b", "folder")
    assert capsys.readouterr().err == ""


def test_of_two_exports_to_one_name_the_first_has_it(tmp_path, monkeypatch):
    data = write(tmp_path / "d", noise())
    monkeypatch.setattr(os, "sync", lambda: (tmp_path / "x.zip").write_bytes(b"of the other"))
    with pytest.raises(DataError, match="File exists"):
        save(data, tmp_path / "x.zip", "zip")
    assert (tmp_path / "x.zip").read_bytes() == b"of the other"
