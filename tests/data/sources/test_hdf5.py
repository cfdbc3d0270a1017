import os
from pathlib import Path

import numpy as np
import pytest

from progan.data.create import create
from progan.data.sources.hdf5 import Hdf5
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.support.errors import DataError
from tests.attack.damage import bounded

h5py = pytest.importorskip("h5py", reason="the source is an HDF5 file")

ORIGINALS = np.load(Path(__file__).parents[2] / "golden" / "tfrecords_expected.npz")["images"]


def write(path: Path, pixels: np.ndarray, *, down_to: int = 1) -> None:
    """As h5tool.py lays it out: every level down to 1x1, growing, packed by gzip in pieces of at least 128 bytes."""
    count, channels, side, _ = pixels.shape
    chain = pixels.astype(np.float64)
    with h5py.File(path, "w") as file:
        while side >= down_to:
            array = file.create_dataset(
                f"data{side}x{side}",
                shape=(0, channels, side, side),
                dtype=np.uint8,
                maxshape=(None, channels, side, side),
                chunks=(-(-128 // (channels * side**2)), channels, side, side),
                compression="gzip",
                compression_opts=4,
            )
            array.resize(count, axis=0)
            array[:] = np.rint(chain).astype(np.uint8)
            side //= 2
            if side:
                chain = chain.reshape(count, channels, side, 2, side, 2).mean((3, 5))


def make(src: Path, out: Path, **options) -> ImagePyramid:
    return create(Hdf5(src=src, out=out, **{"workers": 1, **options}), quiet=True)


def images(data: ImagePyramid, resolution: int) -> np.ndarray:
    return data.read(np.arange(len(data)), resolution)


@pytest.fixture
def src(tmp_path):
    write(tmp_path / "set-32x32.h5", ORIGINALS)
    return tmp_path / "set-32x32.h5"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_level_comes_back(src, out, workers):
    data = make(src, out, workers=workers)
    for r in (4, 8, 16, 32):
        assert np.array_equal(images(data, r), np.stack([box_pyramid(image)[r] for image in ORIGINALS]))
    assert data.label_names is None
    facts = {"kind": "hdf5", "file": "set-32x32.h5", "levels_as_stored": [4, 8, 16, 32], "levels_made": []}
    assert data.manifest["source"] == facts | {"found": 24, "left_out": []}


def test_levels_are_taken_as_they_are_even_where_the_pyramid_is_another(src, out):
    other = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), np.uint8)
    with h5py.File(src, "r+") as file:
        file["data8x8"][:] = other
        del file["data4x4"]
    data = make(src, out)
    assert np.array_equal(images(data, 8), other)
    assert np.array_equal(images(data, 4), np.stack([box_pyramid(image)[4] for image in ORIGINALS]))
    assert data.manifest["source"]["levels_made"] == [4]


def test_a_file_that_was_replaced_is_read_anew(src, out):
    make(src, out)
    write(src.with_name("new.h5"), ORIGINALS[::-1])
    src.with_name("new.h5").replace(src)
    assert np.array_equal(images(make(src, out.with_name("again")), 32), ORIGINALS[::-1])


def test_labels_lie_beside_it(src, out):
    labels = np.eye(10, dtype=np.float32)[np.arange(24) % 7]
    np.save(src.with_name("set-32x32-labels.npy"), labels)
    data = make(src, out)
    assert data.label_names == [str(index) for index in range(10)]
    assert np.array_equal(data.read_labels(np.arange(24)), labels)
    some = make(src, out.with_name("some"), images=3)
    assert np.array_equal(some.read_labels(np.arange(3)), labels[:3])
    np.save(src.with_name("set-32x32-labels.npy"), labels[:-1])
    with pytest.raises(DataError, match=r"set-32x32-labels\.npy: holds labels of 23 images, but there are 24"):
        make(src, out.with_name("again"))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4), (1, 4, 4)])
def test_gray_and_the_smallest(tmp_path, out, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (11, *shape), np.uint8)
    write(tmp_path / "x.h5", pixels, down_to=4)
    data = make(tmp_path / "x.h5", out)
    assert np.array_equal(images(data, shape[-1]), pixels)
    assert (data.channels, data.resolutions[0]) == (shape[0], 4)


def test_a_damaged_piece_is_a_bad_image(src, out):
    with h5py.File(src, "r") as file:
        place = file["data16x16"].id.get_chunk_info(5)
    with src.open("r+b") as file:
        file.seek(place.byte_offset + place.size // 2)
        file.write(os.urandom(8))
    with pytest.raises(DataError, match="1 of 24 pictures cannot be used, the first being data16x16 image 5: "):
        make(src, out)
    data = make(src, out, on_bad="skip")
    assert np.array_equal(images(data, 32), np.delete(ORIGINALS, 5, axis=0))


def replaced(name: str, **options):
    def spoil(file) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, **options)

    return spoil


def link(target):
    def spoil(file) -> None:
        del file["data8x8"]
        file["data8x8"] = target

    return spoil


def virtual(file) -> None:
    del file["data8x8"]
    layout = h5py.VirtualLayout((24, 3, 8, 8), np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "secret", (24, 3, 8, 8))
    file.create_virtual_dataset("data8x8", layout)


def group(file) -> None:
    del file["data8x8"]
    file.create_group("data8x8")


def no_arrays(file) -> None:
    for name in list(file):
        del file[name]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (replaced("data8x8", shape=(23, 3, 8, 8), dtype="u1"), r"different numbers of images \(.*data8x8 23, .*\)"),
        (replaced("data8x8", shape=(24, 1, 8, 8), dtype="u1"), "different numbers of channels"),
        (replaced("data8x8", shape=(24, 8, 8, 3), dtype="u1"), r"data8x8 is uint8 \[24, 8, 8, 3\], not uint8 images x"),
        (replaced("data8x8", shape=(24, 3, 8, 8), dtype="f4"), "data8x8 is float32"),
        (replaced("data8x8", shape=(24, 3, 8), dtype="u1"), r"data8x8 is uint8 \[24, 3, 8\]"),
        (replaced("data8x8", data=h5py.Empty("u1")), "data8x8 is no array"),
        (replaced("data64x64", shape=(24, 2, 64, 64), dtype="u1"), "2 channels; only 1 and 3"),
        (replaced("data12x12", shape=(24, 3, 12, 12), dtype="u1"), "images of 12x12, no power of two"),
        (
            replaced("data8x8", shape=(2**30, 3, 8, 8), dtype="u1", chunks=(2**24, 3, 8, 8)),
            "pieces of 3,221,225,472 bytes, too large to unpack",
        ),
        (
            replaced("data8x8", shape=(10**6, 3, 8, 8), dtype="u1", chunks=(10**5, 3, 8, 8)),
            "pieces of 19,200,000 bytes, too large to unpack",
        ),
        (
            replaced("data8x8", shape=(24, 3, 8, 8), dtype="u1", external=[("/etc/passwd", 0, 4608)]),
            "data8x8 lies in other files",
        ),
        (virtual, "data8x8 lies in other files"),
        (link(h5py.ExternalLink("/etc/passwd", "x")), "data8x8 is a link to elsewhere"),
        (link(h5py.SoftLink("/data32x32")), "data8x8 is a link to elsewhere"),
        (group, "data8x8 is no array"),
        (no_arrays, "holds no arrays data4x4, data8x8"),
    ],
)
def test_files_that_are_no_such_data_set(src, out, spoil, message):
    with h5py.File(src, "r+") as file:
        spoil(file)
    with bounded(), pytest.raises(DataError, match=message) as caught:
        make(src, out, on_bad="skip")
    assert str(caught.value).startswith(str(src))
    assert not out.exists()


@pytest.mark.parametrize("chunks", [None, (1, 3, 8, 8)])
def test_images_that_are_only_claimed_are_not_made(tmp_path, out, chunks):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data8x8", shape=(10**9, 3, 8, 8), dtype="u1", chunks=chunks)
    lacking = r"x.h5: data8x8 says that it holds 1,000,000,000 images, but lacks some"
    with bounded(), pytest.raises(DataError, match=lacking):
        Hdf5(src=tmp_path / "x.h5", out=out).open()


@pytest.mark.parametrize("chunks", [None, (5, 1, 3, 4), (1, 3, 8, 8)])
def test_any_layout_is_read(tmp_path, out, chunks):
    pixels = ORIGINALS[:, :, :8, :8]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data8x8", data=pixels, chunks=chunks)
    assert np.array_equal(images(make(tmp_path / "x.h5", out), 8), pixels)


def test_an_interrupted_tool_left_nothing(tmp_path, out):
    write(tmp_path / "x.h5", ORIGINALS[:0])
    with pytest.raises(DataError, match="holds not a single image"):
        make(tmp_path / "x.h5", out)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read as HDF5"), (b"text" * 1000, "cannot be read as HDF5"), (None, "no such file")],
)
def test_sources_that_are_no_hdf5(tmp_path, out, content, message):
    if content is not None:
        (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(DataError, match=message):
        make(tmp_path / "x.h5", out)


def test_other_wrong_arguments(src, out):
    with pytest.raises(DataError, match="is a folder; pass an HDF5 file"):
        make(src.parent, out)
    with pytest.raises(DataError, match="0 images make no data set"):
        make(src, out, images=0)


def test_a_file_cut_short(src, out):
    os.truncate(src, src.stat().st_size // 2)
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        make(src, out)
