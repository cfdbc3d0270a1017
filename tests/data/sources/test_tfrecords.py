import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from progan.data.create import create
from progan.data.formats.tfrecord import encode_example, encode_record
from progan.data.source import BadImage
from progan.data.sources.tfrecords import Tfrecords
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.support.errors import DataError

GOLDEN = Path(__file__).parents[2] / "golden" / "tfrecords"


def make(src: Path, out: Path, **options) -> ImagePyramid:
    return create(Tfrecords(src=src, out=out, **{"workers": 1, **options}), quiet=True)


def images(data: ImagePyramid, resolution: int) -> np.ndarray:
    return data.read(np.arange(len(data)), resolution)


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 64]))


@pytest.fixture
def src(tmp_path):
    """A copy of the official set, to be spoilt."""
    shutil.copytree(GOLDEN, tmp_path / "src")
    return tmp_path / "src"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("workers", [1, 2])
def test_the_official_set_at_every_level(out, workers):
    data = make(GOLDEN, out, workers=workers)
    originals = np.load(GOLDEN.parent / "tfrecords_expected.npz")["images"]
    for power in (2, 3, 4, 5):
        raw = np.frombuffer((GOLDEN / f"faces-r0{power}.tfrecords").read_bytes(), np.uint8).reshape(24, -1)
        size = 3 * 4**power
        stored = raw[:, -size - 4 : -4].reshape(24, 3, 2**power, 2**power)  # pixels, then a checksum
        assert np.array_equal(images(data, 2**power), stored)
        assert np.array_equal(stored, np.stack([box_pyramid(image)[2**power] for image in originals]))
    assert data.label_names == ["0", "1", "2"]
    assert np.array_equal(data.read_labels(np.arange(24)), np.load(GOLDEN / "faces-rxx.labels"))
    source = data.manifest["source"]
    assert (source["kind"], source["prefix"], source["found"], source["left_out"]) == ("tfrecords", "faces", 24, [])
    assert (source["levels_as_stored"], source["levels_made"]) == ([4, 8, 16, 32], [])


def test_levels_are_taken_as_they_are_even_where_the_pyramid_is_another(src, out):
    other = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), np.uint8)
    (src / "faces-r03.tfrecords").write_bytes(b"".join(encode_record(encode_example(image)) for image in other))
    assert np.array_equal(images(make(src, out), 8), other)
    (src / "faces-r04.tfrecords").unlink()
    data = make(src, out.with_name("made"))
    assert np.array_equal(images(data, 8), other)
    assert np.array_equal(images(data, 16), np.stack([box_pyramid(image)[16] for image in images(data, 32)]))


def test_levels_without_a_file_are_made(src, out):
    for power in (2, 4):
        (src / f"faces-r0{power}.tfrecords").unlink()
    data = make(src, out)
    golden = make(GOLDEN, out.with_name("golden"))
    assert data.hash == golden.hash
    assert data.manifest["source"]["levels_made"] == [4, 16]
    (src / "faces-r05.tfrecords").unlink()  # then the set is one of 8x8
    assert make(src, out.with_name("small")).resolution == 8


def test_one_of_several_sets(src, out):
    for path in list(src.iterdir()):
        shutil.copy(path, src / path.name.replace("faces", "more-r05"))
    with pytest.raises(DataError, match=f"holds 2 data sets; pass one of {src}/faces, {src}/more-r05"):
        make(src, out)
    assert make(src / "more-r05", out).manifest["source"]["prefix"] == "more-r05"


def test_the_first_so_many(src, out):
    data = make(src, out, images=5)
    assert len(data) == 5
    assert data.read_labels(np.arange(5)).argmax(1).tolist() == [0, 1, 2, 0, 1]
    with pytest.raises(DataError, match="0 images make no data set"):
        make(src, out.with_name("none"), images=0)
    assert len(make(src, out.with_name("all"), images=1000)) == 24


@pytest.mark.parametrize("region", ["length", "length checksum", "data", "data checksum"])
@pytest.mark.parametrize("power", [2, 5])
def test_a_flipped_bit_in_each_part_of_a_record_names_it(src, out, region, power):
    path = src / f"faces-r0{power}.tfrecords"
    size = path.stat().st_size // 24
    offset = {"length": 1, "length checksum": 9, "data": size // 2, "data checksum": size - 2}[region]
    flip(path, 7 * size + offset)
    what = "length" if "length" in region else "data"
    reason = f"{path.name} record 7 at byte {7 * size}: the checksum of its {what} is wrong"
    with pytest.raises(DataError, match=f"1 of 24 pictures cannot be used, the first being {reason}"):
        make(src, out)
    assert not out.exists()
    data = make(src, out, on_bad="skip")
    others = [index for index in range(24) if index != 7]
    assert np.array_equal(images(data, 32), np.load(GOLDEN.parent / "tfrecords_expected.npz")["images"][others])
    assert np.array_equal(data.read_labels(np.arange(23)), np.load(GOLDEN / "faces-rxx.labels")[others])


def test_a_bad_first_record(src, out):
    flip(src / "faces-r05.tfrecords", 100)
    assert len(make(src, out, on_bad="skip")) == 23
    for power in (2, 3, 4):
        flip(src / f"faces-r0{power}.tfrecords", 40)
    with pytest.raises(DataError, match=r"faces-r02\.tfrecords: record 0: the checksum of its data is wrong; copy"):
        make(src, out.with_name("again"))
    flip(src / "faces-r05.tfrecords", 3)
    with pytest.raises(DataError, match=r"faces-r05\.tfrecords: is no TFRecord file"):
        make(src, out.with_name("again"))


def cut(src: Path) -> None:
    path = src / "faces-r04.tfrecords"
    path.write_bytes(path.read_bytes()[:-1])


def drop(src: Path) -> None:
    path = src / "faces-r04.tfrecords"
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 24])


def swap(src: Path) -> None:
    shutil.copy(src / "faces-r02.tfrecords", src / "faces-r04.tfrecords")


def gray(src: Path) -> None:
    record = encode_record(encode_example(np.zeros((1, 16, 16), np.uint8)))
    (src / "faces-r04.tfrecords").write_bytes(24 * record)


def two_channels(src: Path) -> None:
    record = encode_record(encode_example(np.zeros((2, 4, 4), np.uint8)))
    (src / "faces-r02.tfrecords").write_bytes(24 * record)


def zipped(src: Path) -> None:
    path = src / "faces-r04.tfrecords"
    path.write_bytes(gzip.compress(path.read_bytes()))


def emptied(src: Path) -> None:
    (src / "faces-r04.tfrecords").write_bytes(b"")


def another(src: Path) -> None:
    (src / "faces-r04.tfrecords").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))


def folder(src: Path) -> None:
    (src / "faces-r04.tfrecords").unlink()
    (src / "faces-r04.tfrecords").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, r"r04.tfrecords: record 23 at byte 18,929 is cut short, the file ends at byte 19,751; copy or download"),
        (drop, r"different numbers of images \(faces-r02.tfrecords 24, .* faces-r04.tfrecords 23, "),
        (swap, r"r04.tfrecords: its images are 3x4x4, not 3x16x16"),
        (gray, r"r04.tfrecords: its images are 1x16x16, not 3x16x16, or 1x16x16 in all files"),
        (two_channels, r"r02.tfrecords: its images are 2x4x4, not 3x4x4"),
        (zipped, r"r04.tfrecords: is compressed; unpack it with gunzip"),
        (emptied, r"r04.tfrecords: is empty"),
        (another, r"r04.tfrecords: is no TFRecord file"),
        (folder, r"r04.tfrecords: cannot be read \(it is a folder, no plain file\)"),
    ],
)
def test_files_that_are_not_as_they_should_be(src, out, spoil, message):
    spoil(src)
    with pytest.raises(DataError, match=message) as caught:
        make(src, out, on_bad="skip")
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_record_of_another_shape(src, out):
    path = src / "faces-r03.tfrecords"
    raw, size = path.read_bytes(), path.stat().st_size // 24
    turned = encode_record(encode_example(np.zeros((3, 4, 16), np.uint8)))
    path.write_bytes(raw[: 2 * size] + turned + raw[3 * size :])
    with pytest.raises(DataError, match=r"faces-r03\.tfrecords record 2 at byte 494: it is 3x4x16, not 3x8x8"):
        make(src, out)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "no such folder and no prefix of such files; pass the folder of PREFIX-r02"),
        ("empty", "holds no such files; pass the folder of PREFIX-r02"),
        ("src/face", "no such folder and no prefix"),
        ("src/faces-r05.tfrecords", "is a file; pass the folder of PREFIX-r02"),
    ],
)
def test_sources_that_are_no_data_set(src, out, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        make(tmp_path / name, out)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4), (1, 4, 4)])
def test_gray_and_the_smallest(tmp_path, out, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    name = f"x-r0{shape[-1].bit_length() - 1}.tfrecords"
    (tmp_path / name).write_bytes(b"".join(encode_record(encode_example(image)) for image in pixels))
    data = make(tmp_path, out)
    assert np.array_equal(images(data, shape[-1]), pixels)
    assert (data.channels, data.resolutions[0], data.label_names) == (shape[0], 4, None)


def one_hot(rows: int = 24) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[np.arange(rows) % 3]


def with_row(row: list[float]) -> np.ndarray:
    labels = one_hot()
    labels[5] = row
    return labels


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (one_hot(23), "holds labels of 23 images, but there are 24; move it away to go without labels"),
        (one_hot(25), "holds labels of 25 images, but there are 24"),
        *[
            (with_row(row), "the labels of image 5 are not one 1 among zeros")
            for row in ([0.25, 0.5, 0.25], [1, 0, 1], [0, 0, 0], [0, 0.9, 0], [1, 0.1, 0], [1, -1, 0])
        ],
        (np.full((24, 3), np.nan, np.float32), "the labels of image 0"),
        (np.arange(24), r"holds int64 \[24\], not one row of numbers per image"),
        (np.zeros((24, 0), np.float32), "cannot be read|not one row"),
        (np.array([[{"a": 1}]] * 24, object), "cannot be read"),
        (np.array([["a"]] * 24), "not one row of numbers"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 a zip", "cannot be read"),
    ],
)
def test_labels_that_are_not_one_class_per_image(src, out, labels, message):
    with (src / "faces-rxx.labels").open("wb") as file:
        file.write(labels) if isinstance(labels, bytes) else np.save(file, labels)
    with pytest.raises(DataError, match=message) as caught:
        make(src, out)
    assert str(caught.value).startswith(str(src / "faces-rxx.labels"))


def test_labels_of_other_types_and_absent_ones(src, out):
    with (src / "faces-rxx.labels").open("wb") as file:
        np.save(file, np.asfortranarray(one_hot().astype(bool)))
    assert np.array_equal(make(src, out).read_labels(np.arange(24)), one_hot())
    (src / "faces-rxx.labels").unlink()
    assert make(src, out.with_name("none")).label_names is None


def test_two_bad_neighbours_do_not_take_the_rest_with_them(src, out):
    size = (src / "faces-r03.tfrecords").stat().st_size // 24
    for index in (4, 5):
        flip(src / "faces-r03.tfrecords", index * size + 2)
    stream = Tfrecords(src=src, out=out).open()
    results = [stream.levels(job) for job, _ in stream.jobs]
    assert [index for index, result in enumerate(results) if isinstance(result, BadImage)] == [4, 5]
