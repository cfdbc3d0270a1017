import hashlib
import io
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progan.data.create import create
from progan.data.formats.lmdb import Record, read_tree, read_value, records
from progan.data.source import BadImage, BadImageError, ImageStream, Made
from progan.data.sources.lsun import Lsun, category_and_split
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError
from tests.attack.damage import bounded

lmdb = pytest.importorskip("lmdb")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth enough for JPEG, with hard edges that tell filters apart."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (-(-height // 5), -(-width // 5), 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(5, 0).repeat(5, 1)[:height, :width])


def encoded(image: Image.Image, kind: str = "WEBP", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_lmdb(folder: Path, values: list[bytes]) -> dict[bytes, bytes]:
    """An LMDB as the publisher's: keys are sha1 in hexadecimal, so their order is not that of writing."""
    folder.mkdir(parents=True)
    records = {hashlib.sha1(b"%d" % index).hexdigest().encode(): value for index, value in enumerate(values)}
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)
    return dict(sorted(records.items()))


def source(src: Path, **options) -> Lsun:
    return Lsun(src=src, out=src.parent / "out", **options)


def results(stream: ImageStream) -> list[Made | BadImage]:
    made = [stream.levels(job) for job, _ in stream.jobs]
    assert len(made) == stream.total
    return made


def slow_lanczos(image: np.ndarray, size: int) -> np.ndarray:
    """Lanczos with three lobes over pixel centres, rows then columns: [H, W, 3] -> uint8 [size, size, 3].

    As in Pillow, weights are multiples of 2^-22 and the first pass is rounded to whole numbers.
    """

    def along_width(pixels: np.ndarray) -> np.ndarray:
        width = pixels.shape[1]
        scale = width / size
        out = np.zeros((pixels.shape[0], size, 3))
        for target in range(size):
            weights = np.zeros(width)
            for x in range(width):
                distance = (x + 0.5 - (target + 0.5) * scale) / max(scale, 1.0)
                weights[x] = np.sinc(distance) * np.sinc(distance / 3) if abs(distance) < 3 else 0.0
            weights = np.rint(weights / weights.sum() * 2**22) / 2**22
            out[:, target] = np.einsum("hwc,w->hc", pixels.astype(np.float64), weights)
        return np.floor(out + 0.5).clip(0, 255).astype(np.uint8)

    return along_width(along_width(image).transpose(1, 0, 2)).transpose(1, 0, 2)


@pytest.fixture
def src(tmp_path):
    return tmp_path / "bedroom_train_lmdb"


def test_records_come_by_key_with_the_pixels_of_a_slow_loop(src):
    sizes = [(40, 32), (32, 51), (33, 47), (70, 64), (64, 65), (32, 32), (90, 37)]
    pictures = [picture(*size, seed) for seed, size in enumerate(sizes)]
    records = write_lmdb(src, [encoded(image, lossless=True) for image in pictures])
    assert [job.key for job, _ in source(src, resolution=32).open().jobs] == list(records)
    for value, made in zip(records.values(), results(source(src, resolution=32).open()), strict=True):
        image = np.asarray(Image.open(io.BytesIO(value)))
        height, width, _ = image.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = image[top : top + side, left : left + side]
        expected = square if side == 32 else slow_lanczos(square, 32)
        assert np.array_equal(made.levels[32], expected.transpose(2, 0, 1)), image.shape
        assert all(np.array_equal(made.levels[r], level) for r, level in box_pyramid(made.levels[32]).items())


def test_jpeg_and_webp_are_the_official_tools_pixels(src):
    cv2 = pytest.importorskip("cv2")
    values = [
        encoded(picture(341, 256, 0), "JPEG", quality=75),
        encoded(picture(256, 300, 1), quality=75),
        encoded(picture(280, 300, 2).convert("L"), "JPEG", quality=75),
        encoded(picture(600, 300, 3), "JPEG", quality=90, subsampling=0),
    ]
    records = write_lmdb(src, values)
    for value, made in zip(records.values(), results(source(src).open()), strict=True):
        image = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = Image.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
        expected = square.resize((256, 256), Image.Resampling.LANCZOS)
        assert np.array_equal(made.levels[256], np.asarray(expected).transpose(2, 0, 1))


def test_small_images_are_enlarged_and_counted(src):
    records = write_lmdb(src, [encoded(picture(20, 24), lossless=True), encoded(picture(32, 40), lossless=True)])
    small = next(index for index, value in enumerate(records.values()) if Image.open(io.BytesIO(value)).width == 20)
    made = results(source(src, resolution=32).open())
    assert [image.counts["enlarged"] for image in made] == [int(index == small) for index in range(2)]
    expected = slow_lanczos(np.asarray(picture(20, 24))[2:22], 32)
    assert np.array_equal(made[small].levels[32], expected.transpose(2, 0, 1))


def test_broken_records_are_named_by_their_keys(src):
    whole = encoded(picture(32, 32), "JPEG")
    broken = {b"", b"not a picture", whole[:-200]}
    records = write_lmdb(src, [whole, *broken, whole])
    made = results(source(src, resolution=32).open())
    for (key, value), result in zip(records.items(), made, strict=True):
        assert isinstance(result, BadImage) == (value in broken)
        assert isinstance(result, Made) or result.name == key.decode()
    assert {result.reason for result in made if isinstance(result, BadImage)} >= {"not a picture that Pillow can read"}


def test_a_data_set_without_the_broken_ones(src):
    write_lmdb(src, [encoded(picture(40, 32, seed), lossless=True) for seed in range(4)] + [b"broken"])
    one = create(source(src, resolution=32, workers=1), quiet=True)
    assert len(one) == 4
    facts = one.manifest["source"]
    assert facts["category"] == "bedroom"
    assert facts["records"] == 5
    assert len(facts["left_out"]) == 1
    two = create(Lsun(src=src, out=src.parent / "two", resolution=32, workers=2), quiet=True)
    assert two.hash == one.hash
    with pytest.raises(DataError, match="1 of 5"):
        create(Lsun(src=src, out=src.parent / "three", resolution=32, workers=1, on_bad="fail"), quiet=True)


def test_only_the_first_images(src):
    records = write_lmdb(src, [encoded(picture(8, 8, seed)) for seed in range(5)])
    stream = source(src, resolution=8, images=3).open()
    assert [job.key for job, _ in stream.jobs] == list(records)[:3]
    assert stream.total == 3
    assert source(src, resolution=8, images=9).open().total == 5


def test_what_workers_are_sent_is_small(src):
    write_lmdb(src, [encoded(picture(300, 256), "JPEG")])
    stream = source(src).open()
    job, label = next(iter(stream.jobs))
    assert label is None
    assert len(pickle.dumps((stream.levels, job))) < 1000


def test_an_lmdb_that_changed_is_read_anew(src):
    write_lmdb(src, [encoded(picture(8, 8))])
    assert source(src, resolution=8).open().total == 1
    for file in src.iterdir():
        file.unlink()
    src.rmdir()
    write_lmdb(src, [encoded(picture(8, 8))] * 2)
    assert len(results(source(src, resolution=8).open())) == 2


def test_folder_names_tell_category_and_split():
    assert category_and_split("church_outdoor_val_lmdb") == {"category": "church_outdoor", "split": "val"}
    assert category_and_split("test_lmdb") == {"category": "test"}
    assert category_and_split("cat") == {"category": "cat"}


def test_sources_that_are_no_lmdb(tmp_path, src):
    (tmp_path / "bedroom_train_lmdb.zip").write_bytes(b"PK")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips/cat_lmdb.zip").write_bytes(b"PK")
    (tmp_path / "bad_lmdb").mkdir()
    (tmp_path / "bad_lmdb/data.mdb").write_bytes(b"hello" * 4000)
    (tmp_path / "none_lmdb").mkdir()
    (tmp_path / "none_lmdb/data.mdb").write_bytes(b"")
    (tmp_path / "folder/sub").mkdir(parents=True)
    write_lmdb(tmp_path / "empty_lmdb", [])
    write_lmdb(tmp_path / "both/bedroom_train_lmdb", [b"x"])
    write_lmdb(tmp_path / "both/bedroom_val_lmdb", [b"x"])
    for name, message in {
        "bedroom_train_lmdb.zip": "is still a zip; unpack it and pass the folder bedroom_train_lmdb",
        "notes.txt": "is a file; pass the unpacked folder of one category",
        "missing": "no such folder; pass the unpacked folder of one category",
        "zips": r"holds only zips \(cat_lmdb.zip\); unpack one",
        "bad_lmdb": r"cannot be opened as an LMDB \(.*MDB_INVALID.*\); unpack or download it again",
        "none_lmdb": "cannot be opened as an LMDB",
        "folder": "holds no data.mdb, so it is no LMDB",
        "empty_lmdb": "without a single record",
        "both": "pass one of them: bedroom_train_lmdb, bedroom_val_lmdb",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            source(tmp_path / name).open()
        assert str(caught.value).startswith(str(tmp_path / name)), name
        assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_told_instead_of_killing_the_process(src):
    random = np.random.default_rng(0)
    write_lmdb(src, [random.bytes(20_000) for _ in range(10)])
    size = (src / "data.mdb").stat().st_size
    with (src / "data.mdb").open("r+b") as file:
        file.truncate(size - 5000)
    with pytest.raises(DataError, match=f"data.mdb: {size - 5000:,} bytes, but it was written with {size:,}"):
        source(src).open()


@pytest.mark.parametrize("count", [1, 3, 700, 20_000])
def test_the_index_is_read_as_lmdb_reads_it(src, count):
    """Trees of one leaf and of several levels, short values in the leaves and long ones on pages of their own."""
    random = np.random.default_rng(count)
    written = write_lmdb(src, [random.bytes(int(random.integers(1, 60))) for _ in range(count - 1)] + [bytes(9000)])
    path = src / "data.mdb"
    tree = read_tree(path)
    assert tree.entries == count
    found = list(records(path, tree))
    assert [record.key for record in found] == list(written)
    assert [read_value(path, record) for record in found] == list(written.values())


def test_an_lmdb_that_was_changed_is_read_at_its_newest(src):
    write_lmdb(src, [b"x" * 100] * 500)
    for change in range(4):  # each leaves free pages behind and writes the other of the two states
        with lmdb.open(str(src), map_size=2**24) as environment, environment.begin(write=True) as transaction:
            keys = list(transaction.cursor().iternext(values=False))
            for key in keys[change::3]:
                transaction.delete(key)
            transaction.put(b"new%d" % change, bytes(5000))
        with lmdb.open(str(src), readonly=True) as environment, environment.begin() as transaction:
            kept = list(transaction.cursor())
        path = src / "data.mdb"
        found = list(records(path, read_tree(path)))
        assert [(record.key, read_value(path, record)) for record in found] == kept


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (16 + 72 + 32, 7, "its index is damaged (it does not hold 7 records)"),
        (16 + 72 + 32, 5, "its index is damaged (it does not hold 5 records)"),
        (16 + 72 + 40, 10**6, "its index is damaged (there is no page 1000000)"),
        (16 + 72 + 40, 6, "its index is damaged (page 6 is no page of an index)"),
    ],
)
def test_an_index_that_is_not_what_it_says_is_told(src, at, value, message):
    write_lmdb(src, [bytes(9000)] * 6)
    content = bytearray((src / "data.mdb").read_bytes())
    for start in (0, 4096):  # both states
        content[start + at : start + at + 8] = value.to_bytes(8, "little")
    (src / "data.mdb").write_bytes(content)
    with bounded(), pytest.raises(DataError, match=re.escape(message)):
        create(source(src, resolution=8, workers=1), quiet=True)
    assert not list(src.parent.glob("out*"))


@pytest.mark.parametrize(
    ("node", "leads_to", "message"),
    [(1, "first child", "its keys are in no order"), (0, "root", "it leads in circles")],
)
def test_branches_that_lead_where_they_led_before_are_told(src, node, leads_to, message):
    write_lmdb(src, [b"x" * 100] * 500)
    path = src / "data.mdb"
    content = bytearray(path.read_bytes())
    root = read_tree(path).root * 4096
    nodes = [int.from_bytes(content[at : at + 2], "little") for at in (root + 16, root + 18)]
    number = (
        content[root + nodes[0] : root + nodes[0] + 6] if leads_to == "first child" else bytes([root // 4096, *[0] * 5])
    )
    content[root + nodes[node] : root + nodes[node] + 6] = number
    path.write_bytes(content)
    with bounded(), pytest.raises(DataError, match=message):
        list(records(path, read_tree(path)))


def leads_to(path: Path, page: int) -> None:
    """Say of the one value of an LMDB, which is long, that it begins at another page."""
    content, root = bytearray(path.read_bytes()), read_tree(path).root * 4096
    node = root + int.from_bytes(content[root + 16 : root + 18], "little")
    content[node + 48 : node + 56] = page.to_bytes(8, "little")  # after 8 bytes and the key's 40
    path.write_bytes(content)


def test_a_value_that_lies_outside_the_file_is_told(src):
    write_lmdb(src, [bytes(9000)])
    path = src / "data.mdb"
    leads_to(path, 10**6)
    with pytest.raises(DataError, match=r"its index is damaged \(a record at byte \d+ lies outside the file\)"):
        list(records(path, read_tree(path)))


def test_a_value_that_is_not_where_the_index_says_is_a_bad_image(src):
    write_lmdb(src, [bytes(9000)])
    path = src / "data.mdb"
    leads_to(path, 0)
    (record,) = records(path, read_tree(path))
    with pytest.raises(BadImageError, match="is not where the index says"):
        read_value(path, record)


def test_a_value_longer_than_any_picture_makes_no_room(tmp_path):
    path = tmp_path / "data.mdb"
    path.touch()
    os.truncate(path, 2**30)
    with bounded(), pytest.raises(BadImageError, match="has 536,870,913 bytes, more than any picture"):
        read_value(path, Record(b"key", 0, 2**29 + 1, None))


def test_wrong_options(src):
    write_lmdb(src, [b"x"])
    with pytest.raises(DataError, match="0 images make no data set"):
        source(src, images=0).open()
    with pytest.raises(DataError, match="48 is not a power of two"):
        source(src, resolution=48).open()
