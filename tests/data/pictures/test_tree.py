import io
import json
import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progan.data.create import create
from progan.data.pictures.tree import open_tree
from progan.data.sources.folder import Folder
from progan.data.store.pyramid import ImagePyramid
from progan.support.errors import DataError
from tests.attack.damage import bounded

NAMES = ["b/2.png", "b/10.png", "a/1.png", "a/c/d.bmp"]


def picture(seed: int, side: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def contents() -> dict[str, bytes]:
    pictures = {name: encoded(picture(i), "BMP" if name.endswith("bmp") else "PNG") for i, name in enumerate(NAMES)}
    return pictures | {".hidden.png": b"x", "__MACOSX/a/._1.png": b"x", "a/notes.txt": b"x"}


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.mkdir("a")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    with tarfile.open(path, "w:" + {".gz": "gz", ".xz": "xz"}.get(path.suffix, "")) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def make(src: Path, **options) -> ImagePyramid:
    out = src.parent / f"{src.name}.data"
    return create(Folder(src=src, out=out, **{"workers": 1, **options}), quiet=True)


def everything(data: ImagePyramid) -> np.ndarray:
    return data.read(np.arange(len(data)), data.resolution)


def expected(order: list[str]) -> np.ndarray:
    return np.stack([np.asarray(picture(NAMES.index(name))).transpose(2, 0, 1) for name in order])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_zip_file_is_read_by_name(tmp_path, workers):
    data = make(write_zip(tmp_path / "x.zip", contents()), labels="folders", workers=workers)
    assert np.array_equal(everything(data), expected(sorted(NAMES)))
    assert data.label_names == ["a", "b"]
    assert data.label_counts() == [2, 2]
    source = data.manifest["source"]
    assert (source["folder"], source["found"], source["ignored_hidden"], source["ignored_other"]) == ("x.zip", 4, 2, 1)


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.TAR.xz", "x.tgz"])
def test_a_tar_file_is_read_in_its_own_order(tmp_path, name):
    path = write_tar(tmp_path / name.lower().replace("tgz", "tar.gz"), contents(), prefix="./")
    data = make(path.rename(tmp_path / name), labels="folders")
    assert np.array_equal(everything(data), expected(NAMES))
    assert data.label_counts() == [2, 2]
    assert data.manifest["source"]["ignored_other"] == 2  # the text and the link


def test_a_folder_a_zip_and_a_tar_of_it_make_the_same_data_set(tmp_path):
    files = {name: contents()[name] for name in sorted(NAMES)}
    for name, data in files.items():
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_bytes(data)
    made = [
        make(src)
        for src in (tmp_path / "x", write_zip(tmp_path / "x.zip", files), write_tar(tmp_path / "x.tar", files))
    ]
    assert len({data.hash for data in made}) == 1


@pytest.mark.parametrize("named", [None, ["cat", "dog", "owl"]])
def test_labels_of_a_dataset_json(tmp_path, named):
    labels = [["a/1.png", 2], ["b/2.png", 0], ["b/10.png", 2], ["a/c/d.bmp", 1], ["gone.png", 7]]
    more = {"dataset.json": json.dumps({"labels": labels, "label_names": named}).encode()}
    for src in (write_zip(tmp_path / "x.zip", contents() | more), write_tar(tmp_path / "x.tar", contents() | more)):
        data = make(src, labels="json")
        order = sorted(NAMES) if src.suffix == ".zip" else NAMES
        assert data.read_labels(np.arange(4)).argmax(1).tolist() == [dict(labels)[name] for name in order]
        assert data.label_names == (named or ["0", "1", "2"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "dataset.json: is missing"),
        (b"{", 'needs {"labels"'),
        (b'{"labels": null}', 'needs {"labels"'),
        (b'{"labels": 3}', 'needs {"labels"'),
        (b'{"labels": [["a/1.png", 2]]}', "a/c/d.bmp has no label"),
        (b'{"labels": {"a/1.png": 0.5}}', "a/1.png has the label 0.5, which is no class index"),
        (b'{"labels": {"a/1.png": -1}}', "a/1.png has the label -1"),
        (b'{"labels": {"a/1.png": 1000000000}}', "a/1.png has the label 1000000000, which is no class index"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, message):
    more = {} if labels is None else {"dataset.json": labels}
    src = write_zip(tmp_path / "x.zip", contents() | more)
    with pytest.raises(DataError) as error:
        make(src, labels="json")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == [src]


def test_a_bad_member_is_named_and_the_rest_goes_on(tmp_path):
    files = contents() | {"a/0.png": b"no picture", "b/3.png": encoded(picture(9))[:-200]}
    path = write_zip(tmp_path / "x.zip", files, zipfile.ZIP_STORED)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.find(files["b/2.png"]) + 60] ^= 1  # the checksum finds it
    path.write_bytes(damaged)
    data = make(path, on_bad="skip")
    left_out = {bad["file"]: bad["reason"] for bad in data.manifest["source"]["left_out"]}
    assert list(left_out) == ["a/0.png", "b/2.png", "b/3.png"]
    assert "cannot be unpacked (Bad CRC-32" in left_out["b/2.png"]
    assert np.array_equal(everything(data), expected(["a/1.png", "a/c/d.bmp", "b/10.png"]))


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_an_archive_that_is_none(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>not found</html>" * 40)
    with pytest.raises(DataError, match="cannot be read as an archive"):
        make(tmp_path / name)


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="needs /proc")
def test_a_link_to_the_system_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"")
    for place in ("/proc", "/proc/self", "/sys", "/dev"):
        (tmp_path / place.replace("/", "-")).symlink_to(place)
    assert names_in(tmp_path) == ["one.png"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"b.png", b"b.pnf", "File name in directory 'b.pnf' and header b'b.png' differ"),  # no picture any more
        (b"c/d.png", b".c/.png", "File name in directory '.c/.png' and header b'c/d.png' differ"),  # nor what is hidden
        (
            b"PK\x05\x06\0\0\0\0\3\0\3\0",
            b"PK\x05\x06\0\0\0\0\4\0\4\0",
            "its list of files has 3 entries, its end says 4",
        ),
    ],
)
def test_a_zip_whose_list_was_damaged_is_no_smaller_data_set(tmp_path, old, new, message):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as pack:
        for name in ("a.png", "b.png", "c/d.png"):
            pack.writestr(name, b"x")
    assert len(list(open_tree(path).files())) == 3
    start, _, end = path.read_bytes().rpartition(old)  # the last is that of the list
    path.write_bytes(start + new + end)
    with pytest.raises(DataError, match=re.escape(message)):
        list(open_tree(path).files())


def test_a_truncated_tar(tmp_path):
    path = write_tar(tmp_path / "x.tar.gz", contents())
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match="cannot be read as an archive"):
        make(path)


def test_fix_cuts_squares_drops_copies_and_leaves_out_what_cannot_be_mended(tmp_path):
    files = contents() | {"wide.png": encoded(Image.new("RGB", (40, 16), "red")), "copy.png": contents()["a/1.png"]}
    files |= {"z.png": b"", "small.png": encoded(picture(5, 8))}
    data = make(write_zip(tmp_path / "x.zip", files), on_bad="fix", resolution=16)
    left_out = {bad["file"]: bad["reason"] for bad in data.manifest["source"]["left_out"]}
    assert list(left_out) == ["copy.png", "small.png", "z.png"]
    assert left_out["copy.png"] == "the same bytes as a/1.png"
    assert np.array_equal(everything(data)[:4], expected(sorted(NAMES)))
    assert (everything(data)[4] == np.array([255, 0, 0])[:, None, None]).all()


def test_only_the_first_images(tmp_path):
    data = make(write_zip(tmp_path / "x.zip", contents()), images=3)
    assert np.array_equal(everything(data), expected(sorted(NAMES)[:3]))
    with pytest.raises(DataError, match="0 images make no data set"):
        make(tmp_path / "x.zip", images=0)


def test_a_zip_that_was_replaced_is_read_anew(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.png": encoded(picture(0))})
    assert len(make(path)) == 1
    (tmp_path / "x.zip.data").rename(tmp_path / "first")
    path.unlink()
    write_zip(path, contents())
    assert len(make(path)) == 4


def names_in(src: Path) -> list[str]:
    with bounded():
        return [file.name for file in open_tree(src).files()]


def test_a_pipe_that_calls_itself_a_picture_is_none(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"")
    os.mkfifo(tmp_path / "two.png")
    tree = open_tree(tmp_path)
    assert ([file.name for file in tree.files()], tree.other) == (["one.png"], 1)


def test_links_lead_into_each_real_folder_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.png").write_bytes(b"")
    for level in range(20):  # each doubles the ways
        (tmp_path / "a" / f"to-b-{level}").symlink_to(tmp_path / "b")
        (tmp_path / "b" / f"to-a-{level}").symlink_to(tmp_path / "a")
    assert names_in(tmp_path) == ["a/one.png", "b/one.png"]


def test_a_folder_goes_by_its_own_name_not_by_that_of_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "one.png").write_bytes(b"")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert names_in(tmp_path) == ["z/one.png"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_what_cannot_be_looked_at_is_no_smaller_data_set(tmp_path: Path, monkeypatch, error: OSError) -> None:
    """As in a folder that may be listed and not entered."""
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(b"")

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path, self.is_symlink, self.really = entry.name, entry.path, entry.is_symlink, entry.stat

        def stat(self, **how: bool) -> os.stat_result:
            if self.name == "two.png":
                raise error
            return self.really(**how)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: [Entry(entry) for entry in scandir(folder)])
    with pytest.raises(DataError, match=rf"two\.png: cannot be read \({error.strerror}\); mend its permissions"):
        names_in(tmp_path)


def test_what_vanishes_while_a_folder_is_walked_is_passed_over(tmp_path: Path, monkeypatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for name in ("a/one.png", "gone.png"):
        (tmp_path / name).write_bytes(b"")
    scandir = os.scandir

    def vanishing(folder: Path) -> list[os.DirEntry[str]]:
        entries = list(scandir(folder))
        (tmp_path / "gone.png").unlink() if folder == tmp_path else (tmp_path / "b").rmdir()
        return entries

    monkeypatch.setattr(os, "scandir", vanishing)
    assert names_in(tmp_path) == ["a/one.png"]


def test_a_thousand_levels_are_walked(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (tmp_path / "d" / "one.png").write_bytes(b"")
    try:
        assert names_in(tmp_path) == ["d/one.png"]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest's own cleaning cannot go so deep


def test_a_list_that_is_no_plain_file_or_too_large_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dataset.json")
    with bounded(), pytest.raises(DataError, match="it is a pipe"):
        open_tree(tmp_path).read("dataset.json")
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("dataset.json", "w") as file:
        for _ in range(130):
            file.write(bytes(2**20))
    with pytest.raises(DataError, match="more than any list has"):
        open_tree(bomb).read("dataset.json")


def test_a_tar_that_was_cut_at_a_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "b.png"):
            tar.addfile(tarfile.TarInfo(name))
    path.write_bytes(path.read_bytes()[:512])
    with pytest.raises(DataError, match="damaged or cut off at byte 512"):
        names_in(path)
