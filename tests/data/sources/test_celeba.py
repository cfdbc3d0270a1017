import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progan.data.create import create
from progan.data.source import BadImage, ImageStream
from progan.data.sources.celeba import CelebA
from progan.data.store.pyramid import box_pyramid
from progan.support.errors import DataError

NAMES = ["5_o_Clock_Shadow", "Male", "Smiling"]


def aligned(seed: int, size: tuple[int, int] = (178, 218)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def jpeg(seed: int, size: tuple[int, int] = (178, 218)) -> bytes:
    file = io.BytesIO()
    aligned(seed, size).save(file, "JPEG", quality=90)
    return file.getvalue()


def slow_face(data: bytes) -> np.ndarray:
    """The 128x128 pixels whose centre, right below the middle one, is x 89 and y 121: uint8 [3, 128, 128]."""
    pixels = Image.open(io.BytesIO(data)).load()
    face = np.zeros((3, 128, 128), np.uint8)
    for y in range(121 - 64, 121 + 64):
        for x in range(89 - 64, 89 + 64):
            face[:, y - (121 - 64), x - (89 - 64)] = pixels[x, y]
    return face


@pytest.fixture
def root(tmp_path):
    """Six pictures as the publisher ships them: Img/img_align_celeba.zip, Anno, Eval."""
    for name in ("Img", "Anno", "Eval"):
        (tmp_path / name).mkdir()
    with zipfile.ZipFile(tmp_path / "Img/img_align_celeba.zip", "w") as archive:
        archive.writestr("img_align_celeba/", b"")
        for number in (3, 1, 2, 4, 5, 6):
            archive.writestr(f"img_align_celeba/{number:06}.jpg", jpeg(number))
    rows = ["-1  1 -1", " 1 -1  1", "-1 -1  1", "-1 -1 -1", " 1  1  1", "-1 -1 -1"]
    lines = [f"{number:06}.jpg {row}" for number, row in enumerate(rows, 1)]
    (tmp_path / "Anno/list_attr_celeba.txt").write_text("\n".join(["6", " ".join(NAMES) + " ", *lines]) + "\n")
    parts = "\n".join(f"{number:06}.jpg {part}" for number, part in enumerate([0, 0, 2, 1, 0, 2], 1))
    (tmp_path / "Eval/list_eval_partition.txt").write_text(parts + "\n")
    return tmp_path


def unpacked(root: Path) -> Path:
    with zipfile.ZipFile(root / "Img/img_align_celeba.zip") as archive:
        archive.extractall(root / "Img")
    return root / "Img/img_align_celeba"


def source(src: Path, **options) -> CelebA:
    return CelebA(src=src, out=src.parent / "out", **options)


def numbers(stream: ImageStream) -> list[int]:
    return [int(Path(file.name).stem) for file, _ in stream.jobs]


def test_pictures_come_by_number_with_the_pixels_of_a_slow_loop(root):
    stream = source(root).open()
    assert numbers(stream) == [1, 2, 3, 4, 5, 6]
    assert (stream.resolution, stream.channels, stream.total) == (128, 3, 6)
    for number, (file, label) in enumerate(stream.jobs, 1):
        levels = stream.levels(file)
        assert label is None
        assert np.array_equal(levels[128], slow_face(jpeg(number)))
        assert all(np.array_equal(levels[r], level) for r, level in box_pyramid(levels[128]).items())


def test_every_way_to_name_the_pictures_gives_the_same_data_set(root, tmp_path):
    folder = unpacked(root)
    places = [root, root / "Img", root / "Img/img_align_celeba.zip", folder]
    hashes = {
        create(CelebA(src=place, out=tmp_path / f"out{index}", workers=1), quiet=True).hash
        for index, place in enumerate(places)
    }
    pooled = create(CelebA(src=root / "Img/img_align_celeba.zip", out=tmp_path / "pooled", workers=2), quiet=True)
    assert hashes == {pooled.hash}


def test_png_pictures_win(root):
    folder = root / "Img/img_align_celeba_png"
    folder.mkdir()
    aligned(77).save(folder / "000002.png")
    stream = source(root).open()
    assert numbers(stream) == [2]
    assert stream.facts["pictures"] == "img_align_celeba_png"
    face = np.asarray(aligned(77)).transpose(2, 0, 1)[:, 57:185, 25:153]
    assert np.array_equal(stream.levels(next(iter(stream.jobs))[0])[128], face)


def test_an_attribute_makes_two_classes(root, tmp_path):
    data = create(CelebA(src=root, out=tmp_path / "out", attribute="Smiling", workers=1), quiet=True)
    assert data.label_names == ["not Smiling", "Smiling"]
    assert data.read_labels(np.arange(6)).argmax(1).tolist() == [0, 1, 1, 0, 1, 0]
    assert data.manifest["source"]["attribute"] == "Smiling"
    male = source(root, attribute="Male").open()
    assert [label for _, label in male.jobs] == [1, 0, 0, 0, 1, 0]


def test_splits_are_the_publishers(root):
    assert numbers(source(root, split="train").open()) == [1, 2, 5]
    assert numbers(source(root, split="valid").open()) == [4]
    test = source(root, split="test", attribute="Smiling").open()
    assert numbers(test) == [3, 6]
    assert [label for _, label in test.jobs] == [1, 0]
    assert numbers(source(root, split="train", images=2).open()) == [1, 2]


@pytest.mark.parametrize("where", ["", "Img", "Img/img_align_celeba", "Img/Anno"])
def test_lists_are_found_near_the_pictures(root, where):
    unpacked(root)
    (root / where).mkdir(exist_ok=True)
    (root / "Anno/list_attr_celeba.txt").rename(root / where / "list_attr_celeba.txt")
    assert [label for _, label in source(root, attribute="Smiling").open().jobs] == [0, 1, 1, 0, 1, 0]


def test_pictures_that_are_not_as_published_are_named(root):
    folder = unpacked(root)
    (folder / "000002.jpg").write_bytes(jpeg(2, (409, 687)))
    (folder / "000003.jpg").write_bytes(jpeg(3)[:2000])
    (folder / "000004.jpg").write_bytes(b"hello")
    stream = source(folder).open()
    results = [stream.levels(file) for file, _ in stream.jobs]
    reasons = {bad.name: bad.reason for bad in results if isinstance(bad, BadImage)}
    assert list(reasons) == ["000002.jpg", "000003.jpg", "000004.jpg"]
    assert reasons["000002.jpg"] == "409x687 is not 178x218, the size of CelebA's aligned pictures"
    assert "truncated" in reasons["000003.jpg"]
    assert reasons["000004.jpg"] == "not a picture that Pillow can read"
    with pytest.raises(DataError, match=r"3 of 6 pictures cannot be used, the first being 000002\.jpg: 409x687"):
        create(source(folder, workers=1), quiet=True)
    assert len(create(source(folder, workers=1, on_bad="skip"), quiet=True)) == 3


def test_a_damaged_zip_member_is_named(root):
    path = root / "Img/img_align_celeba.zip"
    data = bytearray(path.read_bytes())
    start = data.index(jpeg(4))
    data[start + 500] ^= 255
    path.write_bytes(data)
    stream = source(path).open()
    results = [stream.levels(file) for file, _ in stream.jobs]
    assert [isinstance(result, BadImage) for result in results] == [number == 4 for number in range(1, 7)]
    assert results[3].name == "img_align_celeba/000004.jpg"
    assert "cannot be unpacked" in results[3].reason


def test_pictures_without_a_line_are_bad(root):
    for name in ("Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"):
        text = (root / name).read_text()
        (root / name).write_text("".join(line for line in text.splitlines(True) if "000002" not in line))
    assert source(root).open().bad == []
    for options, name in (({"attribute": "Male"}, "list_attr_celeba"), ({"split": "train"}, "list_eval_partition")):
        stream = source(root, **options).open()
        assert stream.bad == [BadImage("img_align_celeba/000002.jpg", f"has no line in {name}.txt")]
        assert 2 not in numbers(stream)
        assert stream.total == len(numbers(stream))


def test_a_part_of_celeba_is_noted_and_other_files_do_not_count(root):
    folder = unpacked(root)
    (folder / "notes.jpg").write_bytes(b"x")
    (folder / "._000001.jpg").write_bytes(b"x")
    stream = source(folder).open()
    assert stream.notes == [f"{folder}: 6 of CelebA's 202,599 pictures"]
    assert stream.total == 6


def test_sources_that_are_not_celeba(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "archive.7z").write_bytes(b"7z")
    (tmp_path / "bad.zip").write_bytes(b"hello")
    for folder in ("twice/a", "twice/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "000001.jpg").write_bytes(b"x")
    for name, message in {
        "missing": "no such file or folder; pass the publisher's img_align_celeba.zip",
        "empty": "holds no picture named like 000001.jpg; pass the publisher's",
        "archive.7z": "is no zip file and no folder; pass the publisher's",
        "bad.zip": "cannot be read as an archive",
        "twice": "the picture 000001 is there twice, as a/000001.jpg and b/000001.jpg; pass the folder of one",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            source(tmp_path / name).open()
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_wrong_lists_and_options(root):
    attributes, partition = root / "Anno/list_attr_celeba.txt", root / "Eval/list_eval_partition.txt"
    with pytest.raises(DataError, match=f"--attribute Smile: is not in .*; choose one of {', '.join(NAMES)}"):
        source(root, attribute="Smile").open()
    with pytest.raises(DataError, match="0 images make no data set"):
        source(root, images=0).open()
    whole = attributes.read_text()
    for line in ("000001.jpg -1 1", "000001.jpg -1 1 0", "000001.jpg"):
        attributes.write_text(whole.replace("000001.jpg -1  1 -1", line))
        with pytest.raises(DataError, match=r"celeba\.txt: line 3: is not a picture's name and 3 times -1 or 1"):
            source(root, attribute="Smiling").open()
    attributes.write_bytes(b"6\n\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        source(root, attribute="Smiling").open()
    attributes.write_text("")
    with pytest.raises(DataError, match="choose one of none"):
        source(root, attribute="Smiling").open()
    partition.write_text("000001.jpg 3\n")
    with pytest.raises(DataError, match="line 1: is not a picture's name and 0, 1 or 2"):
        source(root, split="train").open()
    partition.unlink()
    with pytest.raises(DataError, match=r"--split test: needs the publisher's list_eval_partition\.txt"):
        source(root, split="test").open()
    attributes.unlink()
    with pytest.raises(DataError, match=r"--attribute Male: needs the publisher's list_attr_celeba\.txt"):
        source(root, attribute="Male").open()
