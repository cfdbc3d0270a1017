import json
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from progan.data.store.manifest import dataset_hash
from progan.data.store.pyramid import HEADER_BYTES, ImagePyramid, box_pyramid
from progan.data.store.writer import PyramidWriter
from progan.support.errors import DataError

DATA = Path(__file__).parents[2] / "golden"


def images(count: int, channels: int = 3, resolution: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, resolution, resolution), dtype=np.uint8)


def write(
    out: Path, pixels: np.ndarray, labels: list[int] | None = None, names: list[str] | None = None
) -> ImagePyramid:
    with PyramidWriter(
        out,
        resolution=pixels.shape[-1],
        channels=pixels.shape[1],
        label_names=names,
        source={"kind": "test"},
        command="progan test",
    ) as writer:
        for index, image in enumerate(pixels):
            writer.append(box_pyramid(image), None if labels is None else labels[index])
    return ImagePyramid.open(out)


@pytest.mark.parametrize("power", [2, 3, 4])
def test_levels_are_those_of_the_official_tool(power):
    originals = np.load(DATA / "tfrecords_expected.npz")["images"]
    raw = (DATA / "tfrecords" / f"faces-r0{power}.tfrecords").read_bytes()
    records = np.frombuffer(raw, np.uint8).reshape(len(originals), -1)  # of equal lengths: ..., pixels, crc
    size = 3 * 4**power
    expected = records[:, -size - 4 : -4].reshape(-1, 3, 2**power, 2**power)
    assert np.array_equal(np.stack([box_pyramid(image)[2**power] for image in originals]), expected)


def test_halves_round_to_even_and_only_what_is_stored_is_rounded():
    image = np.zeros((1, 8, 8), np.uint8)
    image[0, 0, 0:2] = 1  # mean 0.5 -> 0
    image[0, 0, 2:4], image[0, 1, 2:4] = 1, 2  # mean 1.5 -> 2
    image[0, 2:4, 0:2] = [[0, 0], [1, 1]]  # 0.5 -> 0
    small = np.zeros((1, 16, 16), np.uint8)
    small[0, :4, :4] = np.kron([[1, 1], [1, 0]], [[1, 1], [0, 0]])  # 0.5 0.5 0.5 1: rounding on the way gives 0
    small[0, 3, 3] = 4
    assert box_pyramid(image)[4][0, :2, :2].tolist() == [[0, 2], [0, 0]]
    assert box_pyramid(small)[4][0, 0, 0] == round((6 + 4) / 16)


@pytest.mark.parametrize("most", [1, 2, 255])
def test_every_level_is_the_rounded_mean_of_the_image_itself(most):
    image = np.random.default_rng(most).integers(0, most + 1, (2, 512, 512), dtype=np.uint8)
    image[1, :256] = most  # the largest sums
    for resolution, level in box_pyramid(image).items():
        side = 512 // resolution
        blocks = image.reshape(2, resolution, side, resolution, side)
        means = blocks.sum((2, 4), dtype=np.int64) / side**2  # exact in 64 bits
        assert np.array_equal(level, np.rint(means)), resolution


def test_what_was_written_is_read(tmp_path):
    pixels = images(5)
    labels = [2, 0, 1, 2, 2]
    data = write(tmp_path / "d", pixels, labels, ["a", "b", "c"])
    pick = np.array([4, 0, 4])
    assert len(data) == data.count == 5
    assert data.channels == 3
    assert data.resolution == 16
    assert data.resolutions == [4, 8, 16]
    assert data.label_dim == 3
    assert data.label_counts() == [1, 1, 3]
    assert np.array_equal(data.read(pick, 16), pixels[pick])
    for r in (4, 8):
        assert np.array_equal(data.read(pick, r), np.stack([box_pyramid(pixels[i])[r] for i in pick]))
    assert np.array_equal(data.read_labels(pick), np.eye(3, dtype=np.float32)[[2, 2, 2]])
    assert data.read_labels(pick).dtype == np.float32
    data.verify()


def test_labels_of_many_classes_take_the_memory_of_their_rows(tmp_path):
    data = write(tmp_path / "d", images(2), [3, 9_999], [f"person {i}" for i in range(10_000)])
    tracemalloc.start()
    labels = data.read_labels(np.array([1, 0, 1]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels.argmax(1).tolist() == [9_999, 3, 9_999]
    assert labels.sum(1).tolist() == [1, 1, 1]
    assert peak < 2 * labels.nbytes


def test_reading_copies(tmp_path):
    data = write(tmp_path / "d", images(2))
    data.read(np.array([0]), 16)[:] = 7
    assert np.array_equal(data.read(np.array([0]), 16), images(2)[:1])


CHANGES = {
    "overwritten": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"7"),
    "cut": lambda path: truncate(path),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"7"),
}


@pytest.mark.parametrize("name", ["images-16x16.npy", "labels.npy"])
@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_is_changed_while_it_is_in_use_is_not_read(tmp_path, how, name):
    data = write(tmp_path / "d", images(3), [0, 1, 1], ["a", "b"])
    os.utime(data.path / name, ns=(0, 0))  # or all of this may happen in one tick of the disk's clock
    data = ImagePyramid.open(data.path)
    read = data.read_labels if name == "labels.npy" else partial(data.read, resolution=16)
    read(np.array([2]))
    CHANGES[how](data.path / name)
    with pytest.raises(DataError, match=f"{name}: was changed while it was in use"):
        read(np.array([2]))
    data.read(np.array([2]), 8)  # the others are what they were


def test_a_file_that_is_changed_while_it_is_copied_is_seen(tmp_path, monkeypatch):
    data = write(tmp_path / "d", images(3))
    path = data.path / "images-16x16.npy"
    os.utime(path, ns=(0, 0))
    data = ImagePyramid.open(data.path)

    def indices():
        os.utime(path)
        return np.array([0])

    monkeypatch.setattr(np, "asarray", lambda value: value())
    with pytest.raises(DataError, match="was changed while it was in use"):
        data.read(indices, 16)


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be moved there")
def test_a_data_set_that_is_moved_or_replaced_is_read_on(tmp_path):
    data = write(tmp_path / "d", images(3))
    (tmp_path / "d").rename(tmp_path / "moved")
    write(tmp_path / "d", images(3)[::-1])
    assert np.array_equal(data.read(np.arange(3), 16), images(3))


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be moved there")
def test_a_data_set_that_is_cut_where_it_was_moved_to_is_not_read(tmp_path):
    """Its pages behind the end would end the process."""
    data = write(tmp_path / "d", images(3))
    (tmp_path / "d").rename(tmp_path / "moved")
    truncate(tmp_path / "moved" / "images-16x16.npy")
    with pytest.raises(DataError, match=r"images-16x16\.npy: was changed while it was in use"):
        data.read(np.array([0]), 16)


def test_without_labels(tmp_path):
    data = write(tmp_path / "d", images(2))
    assert data.label_names is None
    assert data.label_dim == 0
    assert data.label_counts() == []
    assert data.read_labels(np.array([0, 1])).shape == (2, 0)


def test_large_images_are_written_at_once_and_leave_the_memory_later(tmp_path, monkeypatch):
    asked: list[tuple[int, int]] = []

    def advise(file: int, start: int, size: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        assert os.fstat(file).st_size > start  # it has been handed to the system
        asked.append(((start - HEADER_BYTES) // size, size))
        raise OSError("advice is not heard everywhere")

    monkeypatch.setattr(os, "posix_fadvise", advise)
    pixels = images(6, resolution=1024)
    data = write(tmp_path / "data", pixels)
    assert [row for row, size in asked if size == 3 * 1024**2] == [0, 1, 2, 3, 4, 0, 5, 1]
    assert [row for row, size in asked if size == 3 * 512**2] == [0, 1, 2, 3, 4, 0, 5, 1]
    assert len(asked) == 16
    assert np.array_equal(data.read(np.arange(6), 1024), pixels)
    asked.clear()
    with PyramidWriter(tmp_path / "other", resolution=1024, channels=3, source={}) as writer:
        for row in (0, 1, 4, 5, 6):  # as one of two processes
            digests = writer.rows().write(row, box_pyramid(pixels[row % 6]))
        writer.adopt(0, digests)
    assert [row for row, size in asked if size == 3 * 1024**2] == [0, 1, 4, 5, 6, 0]


def test_the_files_are_plain_npy(tmp_path):
    write(tmp_path / "d", images(3), [0, 1, 0], ["a", "b"])
    assert np.array_equal(np.load(tmp_path / "d/images-16x16.npy"), images(3))
    assert np.load(tmp_path / "d/labels.npy").tolist() == [0, 1, 0]


def test_the_hash_names_the_content(tmp_path):
    first, again = write(tmp_path / "a", images(3)), write(tmp_path / "b", images(3))
    other = images(3)
    other[0, 0, 0, 0] ^= 128
    assert first.hash == again.hash != write(tmp_path / "c", other).hash


def test_asking_for_a_missing_resolution(tmp_path):
    with pytest.raises(DataError, match=r"no resolution 32; it holds \[4, 8, 16"):
        write(tmp_path / "d", images(1)).read(np.array([0]), 32)


@pytest.mark.parametrize(("resolution", "message"), [(48, "not a power of two; choose 32 or 64"), (2, "too small")])
def test_resolutions_that_cannot_be(tmp_path, resolution, message):
    with pytest.raises(DataError, match=message):
        PyramidWriter(tmp_path / "d", resolution=resolution, channels=3, source={})


def edit(data: Path, change) -> None:
    manifest = json.loads((data / "dataset.json").read_text())
    change(manifest)
    (data / "dataset.json").write_text(json.dumps(manifest))


def shrink(manifest):  # consistent in itself, but not with the headers
    for entry in manifest["files"]:
        entry["shape"][0] -= 1
    manifest["count"] -= 1
    manifest["hash"] = dataset_hash(manifest["files"])


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def overwrite(path: Path, array: np.ndarray) -> None:
    np.save(path, array)


BREAKAGES = {
    "no manifest": (lambda d: (d / "dataset.json").unlink(), "half-written data set"),
    "empty folder": (lambda d: [f.unlink() for f in d.iterdir()], "not a data set"),
    "broken JSON": (lambda d: (d / "dataset.json").write_text('{"format": '), "cannot be read as JSON"),
    "binary manifest": (lambda d: (d / "dataset.json").write_bytes(b"\xff\xfe\x00"), "cannot be read as JSON"),
    "JSON of another kind": (lambda d: (d / "dataset.json").write_text("[]"), "says \\[\\] where it must be an object"),
    "newer version": (lambda d: edit(d, lambda m: m.update(version=3)), "format version 3"),
    "field missing": (lambda d: edit(d, lambda m: m.pop("channels")), "has no field channels"),
    "field of a wrong type": (lambda d: edit(d, lambda m: m.update(count="3")), "where count must be a whole number"),
    "count edited": (lambda d: edit(d, lambda m: m.update(count=2)), "contradict"),
    "list of files empty": (lambda d: edit(d, lambda m: m.update(files=[])), "contradict"),
    "file entry without a shape": (lambda d: edit(d, lambda m: m["files"][0].pop("shape")), "has no field files"),
    "odd resolution": (lambda d: edit(d, lambda m: m.update(resolution=17)), "makes no sense"),
    "edited checksum": (lambda d: edit(d, lambda m: m["files"][0].update(rows_sha256="0")), "contradict"),
    "file missing": (lambda d: (d / "images-8x8.npy").unlink(), "images-8x8.npy: is missing"),
    "file shorter": (lambda d: truncate(d / "images-8x8.npy"), r"images-8x8.npy: [\d,]+ bytes, but"),
    "file of another shape": (
        lambda d: overwrite(d / "images-8x8.npy", np.zeros((3, 8, 8, 3), np.uint8)),
        r"images-8x8.npy: uint8 \[3, 8, 8, 3\], but",
    ),
    "file of another type": (lambda d: overwrite(d / "images-8x8.npy", np.zeros((3, 3, 8, 8), np.int8)), "int8"),
    "not an array": (lambda d: (d / "images-8x8.npy").write_bytes(bytes(128 + 576)), "images-8x8.npy: cannot be read"),
    "fewer images than told": (lambda d: edit(d, shrink), r"images-4x4.npy: uint8 \[3, 3, 4, 4\], but"),
    "label out of range": (lambda d: overwrite(d / "labels.npy", np.array([0, 1, 9])), "a label is outside 0..1"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_data_set_does_not_open(tmp_path, name):
    breakage, message = BREAKAGES[name]
    write(tmp_path / "d", images(3), [0, 1, 0], ["a", "b"])
    breakage(tmp_path / "d")
    with pytest.raises(DataError, match=message) as caught:
        ImagePyramid.open(tmp_path / "d")
    assert str(tmp_path / "d") in str(caught.value)


def test_paths_that_are_no_data_set(tmp_path):
    (tmp_path / "file").write_text("")
    for name, message in (("missing", "no such folder"), ("file", "is a file")):
        with pytest.raises(DataError, match=message):
            ImagePyramid.open(tmp_path / name)


def test_verify_names_the_file_with_a_flipped_bit(tmp_path):
    write(tmp_path / "d", images(3))
    with (tmp_path / "d/images-8x8.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    data = ImagePyramid.open(tmp_path / "d")  # opening does not read pixels
    with pytest.raises(DataError, match=r"images-8x8\.npy: its content is not what was written"):
        data.verify()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_exception_leaves_nothing(tmp_path, error):
    def cut_short():
        with PyramidWriter(tmp_path / "d", resolution=16, channels=3, source={}) as writer:
            writer.append(box_pyramid(images(1)[0]))
            raise error

    with pytest.raises(error):
        cut_short()
    assert list(tmp_path.iterdir()) == []


def test_no_image_is_no_data_set(tmp_path):
    writer = PyramidWriter(tmp_path / "d", resolution=4, channels=1, source={})
    with pytest.raises(DataError, match="not a single image"), writer:
        pass
    assert list(tmp_path.iterdir()) == []


def test_occupied_places_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    for name, message in (("file", "is a file"), ("full", "already holds files")):
        with pytest.raises(DataError, match=message):
            write(tmp_path / name, images(1))
    assert (tmp_path / "full/notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_and_new_parents_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(write(tmp_path / "empty", images(1))) == len(write(tmp_path / "new/er", images(1))) == 1


@pytest.mark.parametrize("bad", ["missing level", "wrong shape", "wrong type", "label too large", "no label"])
def test_what_append_refuses(tmp_path, bad):
    levels, label = box_pyramid(images(1)[0]), 0
    if bad == "missing level":
        del levels[8]
    elif bad == "wrong shape":
        levels[8] = levels[4]
    elif bad == "wrong type":
        levels[8] = levels[8].astype(np.float32)
    else:
        label = 2 if bad == "label too large" else None
    writer = PyramidWriter(tmp_path / "d", resolution=16, channels=3, label_names=["a", "b"], source={})
    with pytest.raises(DataError), writer:
        writer.append(levels, label)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 1000, 20_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, limit):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with pytest.raises(DataError, match=r"cannot be written \(File too large\); free some space"):
            write(tmp_path / "d", images(40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_at_the_very_end(tmp_path, monkeypatch):
    def no_space(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DataError, match=r"No space left on device"):
        write(tmp_path / "d", images(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_really_full(tmp_path):
    small = tmp_path / "disk"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(DataError, match="No space left on device"):
            write(small / "d", images(200))
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_killed_writer_leaves_no_data_set(tmp_path):
    script = (
        "import sys, time, numpy as np\n"
        "from progan.data.store.pyramid import box_pyramid\nfrom progan.data.store.writer import PyramidWriter\n"
        "with PyramidWriter(sys.argv[1], resolution=64, channels=3, source={}) as writer:\n"
        "    while True:\n"
        "        writer.append(box_pyramid(np.full((3, 64, 64), 9, np.uint8)))\n"
        "        time.sleep(0.002)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "d")], cwd=DATA.parents[1])
    deadline = time.monotonic() + 20
    while not any(f.stat().st_size > 10_000 for f in tmp_path.glob("d.partial-*/images-64x64.npy")):
        assert time.monotonic() < deadline
        assert writer.poll() is None
        time.sleep(0.02)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    with pytest.raises(DataError, match="no such folder"):
        ImagePyramid.open(tmp_path / "d")
    (partial,) = tmp_path.iterdir()
    with pytest.raises(DataError, match="half-written"):
        ImagePyramid.open(partial)
    with pytest.raises(ValueError, match="pickled"):  # it takes the blank header for no array at all
        np.load(partial / "images-64x64.npy")
    assert len(write(tmp_path / "d", images(1))) == 1  # the leftover is not in the way
