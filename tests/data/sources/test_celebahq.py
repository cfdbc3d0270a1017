import bz2
import hashlib
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from progan.data.celebahq import deltas
from progan.data.celebahq.align import align
from progan.data.celebahq.deltas import zip_name
from progan.data.celebahq.lists import read_image_list, read_landmarks
from progan.data.celebahq.ratings import rate
from progan.data.create import create
from progan.data.source import BadImage, Made
from progan.data.sources import celebahq
from progan.data.sources.celebahq import CelebaHQ, Photo, photo_levels, photo_quality, published_levels
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.support.errors import DataError
from tests.data.celebahq.test_deltas import encrypt, store

pytest.importorskip("scipy", reason="aligns faces")

FACE = [(36, 44), (60, 44), (48, 60), (38, 72), (58, 72)]
HEADER = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
SIZE = 64  # in place of 1024
IDX = {0: "000007.jpg", 1: "000002.jpg", 2: "000005.jpg", 1000: "000003.jpg"}


def photo(seed: int, blur: float = 0, size: tuple[int, int] = (96, 112)) -> Image.Image:
    """Noise whose spectrum falls as that of sharp photographs, or blurred by so many pixels."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size[1])[:, None], np.fft.rfftfreq(size[0]))[..., None]
    spectrum = np.fft.rfft2(random.standard_normal((size[1], size[0], 3)), axes=(0, 1)) / np.maximum(frequency, 0.01)
    pixels = np.fft.irfft2(spectrum, (size[1], size[0]), axes=(0, 1))
    picture = Image.fromarray(np.rint(128 + 40 * pixels / pixels.std()).clip(0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(blur))


def jpeg(picture: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def landmarks_text(names: list[str]) -> str:
    numbers = "  ".join(f"{x} {y}" for x, y in FACE)
    return f"{len(names)}\n{HEADER}\n" + "".join(f"{name} {numbers}\n" for name in names)


def aligned(data: bytes, resolution: int = SIZE, landmarks: list | np.ndarray = FACE) -> np.ndarray:
    face = align(Image.open(io.BytesIO(data)), np.float32(landmarks), resolution=resolution)
    return np.asarray(face).transpose(2, 0, 1)


def target(idx: int, resolution: int = SIZE) -> np.ndarray:
    """The published image: nothing like the photograph, so every pixel comes from the delta."""
    return np.random.default_rng(idx).integers(0, 256, (3, resolution, resolution), dtype=np.uint8)


def md5(image: np.ndarray) -> str:
    return hashlib.md5(np.ascontiguousarray(image).tobytes()).hexdigest()


def list_text(rows: list[tuple[int, str, str, str]]) -> str:
    lines = ["idx orig_idx orig_file proc_md5 final_md5"]
    return "\n".join([*lines, *(f"{idx:<8d}{int(file[:6]) - 1:<8d}{file} {p} {f}" for idx, file, p, f in rows)]) + "\n"


@pytest.fixture
def src(tmp_path):
    """CelebA with nine photographs."""
    folder = tmp_path / "celeba"
    (folder / "img_celeba").mkdir(parents=True)
    (folder / "Anno").mkdir()
    names = [f"{number:06d}.jpg" for number in range(1, 10)]
    for number, name in enumerate(names, 1):
        (folder / "img_celeba" / name).write_bytes(jpeg(photo(number, blur=2 * (number % 3))))
    (folder / "Anno/list_landmarks_celeba.txt").write_text(landmarks_text(names))
    return folder


@pytest.fixture
def published(src, tmp_path, monkeypatch):
    """The deltas of four images at 64x64, in the official format."""
    pytest.importorskip("cryptography", reason="decrypts deltas")
    monkeypatch.setattr(celebahq, "NATIVE", SIZE)
    folder = tmp_path / "deltas"
    folder.mkdir()
    rows = []
    for idx, name in IDX.items():
        data = (src / "img_celeba" / name).read_bytes()
        delta = target(idx) - aligned(data)
        store(folder, {idx: encrypt(bz2.compress(delta.tobytes()), data, name)})
        rows.append((idx, name, md5(aligned(data)), md5(target(idx))))
    (folder / "image_list.txt").write_text(list_text(rows[::-1]))
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def make(src: Path, out: Path, **options) -> ImagePyramid:
    return create(CelebaHQ(src=src, out=out, **{"workers": 1, "resolution": SIZE, **options}), quiet=True)


def everything(data: ImagePyramid) -> np.ndarray:
    return data.read(np.arange(len(data)), data.resolution)


def test_deltas_give_the_published_images_in_the_order_of_idx(src, published, out):
    data = make(src, out, deltas=published)
    assert np.array_equal(everything(data), np.stack([target(idx) for idx in IDX]))
    facts = data.manifest["source"]
    assert facts["kind"] == "celebahq"
    assert facts["counts"] == {"processed_hashes_equal": 4, "final_hashes_equal": 4}
    assert facts["left_out"] == []


def test_worker_processes_and_smaller_resolutions_make_the_same_pixels(src, published, out):
    data = make(src, out, deltas=published, resolution=16, workers=2)
    assert np.array_equal(everything(data), np.stack([box_pyramid(target(idx))[16] for idx in IDX]))


def test_images_means_the_first_of_the_list(src, published, out):
    data = make(src, out, deltas=published, images=3)
    assert np.array_equal(everything(data), np.stack([target(idx) for idx in (0, 1, 2)]))


def test_at_full_resolution(src, published):
    name, data, landmarks = "000001.jpg", jpeg(photo(1, size=(1600, 1600))), 8 * np.float32(FACE) + 400
    (src / "img_celeba" / name).write_bytes(data)
    delta = target(7, 1024) - aligned(data, 1024, landmarks)
    store(published, {7: encrypt(bz2.compress(delta.tobytes()), data, name)})
    row = list_text([(7, name, "0" * 32, md5(target(7, 1024)))])
    (published / "image_list.txt").write_text(row)
    image = read_image_list(published / "image_list.txt")[0]
    made = published_levels((image, Photo(src / "img_celeba" / name, landmarks)), folder=published, resolution=8)
    assert isinstance(made, Made)
    assert sorted(made.levels) == [4, 8]
    assert np.array_equal(made.levels[8], box_pyramid(target(7, 1024))[8])
    assert made.counts == {"processed_hashes_equal": 0, "final_hashes_equal": 1}


def test_hashes_that_differ_are_counted_and_change_nothing(src, published, out):
    lines = (published / "image_list.txt").read_text().splitlines()
    lines[1] = lines[1][:-32] + "0" * 32
    lines[2] = " ".join([*lines[2].split()[:3], "f" * 32, "f" * 32])
    (published / "image_list.txt").write_text("\n".join(lines))
    data = make(src, out, deltas=published)
    assert np.array_equal(everything(data), np.stack([target(idx) for idx in IDX]))
    assert data.manifest["source"]["counts"] == {"processed_hashes_equal": 3, "final_hashes_equal": 2}


def remove_photo(src: Path, folder: Path) -> None:
    (src / "img_celeba" / IDX[1]).unlink()


def other_photo(src: Path, folder: Path) -> None:
    (src / "img_celeba" / IDX[1]).write_bytes(jpeg(photo(2), optimize=True))


def cut_photo(src: Path, folder: Path) -> None:
    """The delta's own password, which is no whole picture."""
    data = (src / "img_celeba" / IDX[1]).read_bytes()[:-500]
    (src / "img_celeba" / IDX[1]).write_bytes(data)
    replace_delta(folder, encrypt(bz2.compress(target(1).tobytes()), data, IDX[1]))


def no_row(src: Path, folder: Path) -> None:
    names = [path.name for path in (src / "img_celeba").iterdir() if path.name != IDX[1]]
    (src / "Anno/list_landmarks_celeba.txt").write_text(landmarks_text(names))


def landmarks_in_one_point(src: Path, folder: Path) -> None:
    path = src / "Anno/list_landmarks_celeba.txt"
    lines = path.read_text().splitlines()
    lines[3] = f"{IDX[1]} " + "50 50 " * 5
    path.write_text("\n".join(lines))


def replace_delta(folder: Path, token: bytes | None) -> None:
    tokens = {idx: deltas.read_delta(folder, idx) for idx in (0, 1, 2)} | {1: token}
    deltas.open_zip.cache_clear()
    (folder / zip_name(0)).unlink()
    store(folder, {idx: value for idx, value in tokens.items() if value is not None})


def of_this_photo(src: Path, folder: Path, packed: bytes) -> None:
    replace_delta(folder, encrypt(packed, (src / "img_celeba" / IDX[1]).read_bytes(), IDX[1]))


def cut_token(src: Path, folder: Path) -> None:
    replace_delta(folder, deltas.read_delta(folder, 1)[:-300])


FAILURES = {
    "no photo": (remove_photo, "img_celeba/000002.jpg is missing; unpack it"),
    "another photo": (other_photo, "000002.jpg is not the JPEG that its delta was encrypted with"),
    "half a photo": (cut_photo, "truncated"),
    "no landmarks": (no_row, "000002.jpg is not in Anno/list_landmarks_celeba.txt"),
    "no direction": (landmarks_in_one_point, "landmarks"),
    "no delta": (lambda _, folder: replace_delta(folder, None), "delta00001.dat is not in deltas00000.zip"),
    "half a token": (cut_token, "or the delta is damaged"),
    "no bz2": (lambda src, folder: of_this_photo(src, folder, b"x" * 99), "is no bz2 data"),
    "too short": (lambda src, folder: of_this_photo(src, folder, bz2.compress(bytes(99))), "unpacks to 99 bytes"),
    "too long": (lambda src, folder: of_this_photo(src, folder, bz2.compress(bytes(10**7))), "unpacks to more than"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_cannot_be_made_is_named_and_left_out(src, published, out, failure):
    spoil, reason = FAILURES[failure]
    spoil(src, published)
    data = make(src, out, deltas=published)
    facts = data.manifest["source"]
    assert [bad["file"] for bad in facts["left_out"]] == ["idx 00001 (000002.jpg)"]
    assert reason in facts["left_out"][0]["reason"]
    assert facts["counts"] == {"processed_hashes_equal": 3, "final_hashes_equal": 3}
    assert np.array_equal(everything(data), np.stack([target(idx) for idx in (0, 2, 1000)]))
    out = out.with_name("none")
    with pytest.raises(DataError, match="1 of 4 pictures cannot be used") as caught:
        make(src, out, deltas=published, on_bad="fail")
    assert reason in str(caught.value)
    assert not out.exists()


def test_a_missing_zip_is_told_before_the_work_begins(src, published, out):
    (published / zip_name(0)).unlink()
    stream = CelebaHQ(src=src, out=out, deltas=published, resolution=SIZE).open()
    assert stream.notes == [
        "3 of 4 images cannot be made, the first being idx 00000 (000007.jpg): deltas00000.zip is missing; download it"
    ]
    data = make(src, out, deltas=published)
    assert np.array_equal(everything(data), target(1000)[None])
    assert [bad["file"][:9] for bad in data.manifest["source"]["left_out"]] == ["idx 00000", "idx 00001", "idx 00002"]


def test_a_zip_that_is_none(src, published, out):
    (published / zip_name(1000)).write_text("<html>too many downloads</html>")
    data = make(src, out, deltas=published)
    assert "cannot be read from deltas01000.zip" in data.manifest["source"]["left_out"][0]["reason"]
    assert len(data) == 3


def test_an_interrupted_creation_gives_the_same_data_set(src, published, out, tmp_path, monkeypatch):
    other_photo(src, published)
    whole = make(src, tmp_path / "whole", deltas=published)
    asked = []

    def interrupting(folder, idx, **options):
        asked.append(idx)
        if idx == 2 and asked.count(2) == 1:
            raise KeyboardInterrupt
        return read_delta(folder, idx, **options)

    read_delta = deltas.read_delta
    monkeypatch.setattr(deltas, "read_delta", interrupting)
    with pytest.raises(KeyboardInterrupt):
        make(src, out, deltas=published)
    assert not out.exists()
    data = make(src, out, deltas=published)
    assert asked == [0, 1, 2, 2, 1000]
    assert data.hash == whole.hash
    assert data.manifest["source"] == whole.manifest["source"]


def test_a_photograph_is_taken_as_it_is_stored(src):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    path = src / "img_celeba/000001.jpg"
    path.write_bytes(jpeg(photo(1), exif=exif))
    levels = photo_levels(Photo(path, np.float32(FACE)), enhance="lanczos", resolution=SIZE, native=SIZE)
    assert np.array_equal(levels[SIZE], aligned(jpeg(photo(1))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deltas": True, "count": 3}, "--count chooses the best photographs; with --deltas pass --images"),
        ({"deltas": True, "enhance": "superres"}, "--enhance superres does not go with --deltas"),
        ({"count": 0}, "0 images make no data set"),
        ({"images": 0}, "0 images make no data set"),
        ({"resolution": 128}, "resolution 128 is more than CelebA-HQ has; choose at most 64"),
        ({"resolution": 48}, "48 is not a power of two"),
    ],
)
def test_options_that_make_no_sense(src, published, out, options, message):
    with pytest.raises(DataError, match=message):
        make(src, out, **options | ({"deltas": published} if "deltas" in options else {}))
    assert list(out.parent.glob("out*")) == []


@pytest.mark.parametrize("package", ["cryptography", "scipy"])
def test_a_missing_package_is_told_at_once(src, published, out, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf'needs the package {package}; run: pip install "progan\[celebahq\]"'):
        make(src, out, deltas=published)


def test_folders_that_are_not_celeba(src, published, out, tmp_path):
    with pytest.raises(DataError, match=r"img_celeba: no such folder; unpack img_celeba\.7z there"):
        make(src / "img_celeba", out)
    with pytest.raises(DataError, match=r"image_list\.txt: no such file"):
        make(src, out, deltas=src)
    (src / "Anno/list_landmarks_celeba.txt").unlink()
    with pytest.raises(DataError, match=r"list_landmarks_celeba\.txt: no such file"):
        make(src, out)
    (src / "img_celeba").rename(src / "elsewhere")
    (src / "img_celeba").mkdir()
    (src / "Anno/list_landmarks_celeba.txt").write_text(landmarks_text(["000001.jpg"]))
    with pytest.raises(DataError, match=r"img_celeba: holds no \.jpg files"):
        make(src, out)


def test_landmarks_of_every_photograph(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(
        f"2\n{HEADER} \r\n000001.jpg 165  184  244  176  196  249  194  271  266  260\r\n9.jpg" + " -1 2.5" * 5
    )
    landmarks = read_landmarks(path)
    assert landmarks["000001.jpg"].tolist() == [[165, 184], [244, 176], [196, 249], [194, 271], [266, 260]]
    assert landmarks["9.jpg"].tolist() == [[-1, 2.5]] * 5
    assert landmarks["9.jpg"].dtype == np.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with a count and ten column names"),
        ("000001.jpg 1 2 3 4 5 6 7 8 9 10\n", "does not begin with a count"),
        (f"3\n{HEADER}\na.jpg" + " 1" * 10, "has 1 rows, but says 3; download it again"),
        (f"2\n{HEADER}\na.jpg" + " 1" * 10 + "\nb.jpg" + " 1" * 9, "line 4: is not a file name and ten numbers"),
        (f"1\n{HEADER}\na.jpg" + " x" * 10, "line 3: is not a file name and ten numbers"),
        ("2\n\xff", "cannot be read .it is no plain text."),
    ],
)
def test_lists_that_are_not_of_landmarks(tmp_path, text, message):
    (tmp_path / "list.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        read_landmarks(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column idx"),
        ("idx orig_idx orig_file proc_md5\n", "has no column final_md5"),
        ("idx orig_file proc_md5 final_md5\n", "lists no images"),
        (list_text([(0, "000001.jpg", "0" * 32, "0" * 32)])[:-9], "line 2: is not an index, a file name and two MD5"),
        (list_text([(0, "000001/../../x", "0" * 32, "0" * 32)]), "line 2: is not an index, a file name and two MD5"),
        (list_text([(0, "000001.jpg", "0" * 32, "0" * 32)] * 2), "line 3: idx 0 comes a second time"),
        (list_text([(-1, "000001.jpg", "0" * 32, "0" * 32)]), "line 2: is not an index"),
    ],
)
def test_lists_that_are_not_of_images(tmp_path, text, message):
    (tmp_path / "image_list.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_image_list(tmp_path / "image_list.txt")


# The paper's recipe


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(celebahq, "NATIVE", SIZE)


def kept(src: Path, data: ImagePyramid) -> list[str]:
    """Which photographs the images of a data set are."""
    faces = {path.name: aligned(path.read_bytes()) for path in sorted((src / "img_celeba").iterdir())}
    return [next(name for name in faces if np.array_equal(faces[name], image)) for image in everything(data)]


def ratings(out: Path) -> list[dict]:
    return [json.loads(line) for line in Path(f"{out}.ratings.jsonl").read_text().splitlines()]


def test_the_sharpest_are_kept(src, small, out):
    data = make(src, out, count=3)
    assert kept(src, data) == ["000003.jpg", "000006.jpg", "000009.jpg"]
    facts = data.manifest["source"]
    assert (facts["kind"], facts["rated"], facts["enhance"], facts["order"]) == ("celebahq", 9, "lanczos", "file name")
    assert facts["lowest_quality_kept"] == sorted(row["quality"] for row in ratings(out)[1:])[-3]


def test_the_order_is_that_of_the_names(src, small, out, monkeypatch):
    best = {"000009.jpg": 3.0, "000002.jpg": 2.0, "000005.jpg": 1.0, "000004.jpg": 1.0}
    monkeypatch.setattr(celebahq, "photo_quality", lambda photo, **options: best.get(photo.path.name, 0.0))
    assert kept(src, make(src, out, count=3)) == ["000002.jpg", "000004.jpg", "000009.jpg"]


def test_two_workers_make_the_same(src, small, out):
    other = out.with_name("other")
    assert make(src, out, count=4).hash == make(src, other, count=4, workers=2).hash
    assert ratings(out) == ratings(other)
    assert len(ratings(out)) == 10


def test_rating_goes_on_behind_a_torn_line(src, small, out, monkeypatch):
    whole = make(src, out, count=3)
    file, again = Path(f"{out}.ratings.jsonl"), out.with_name("again")
    lines = file.read_bytes().splitlines(keepends=True)
    asked = []
    monkeypatch.setattr(
        celebahq, "photo_quality", lambda photo, **o: asked.append(photo.path.name) or measure(photo, **o)
    )
    measure = photo_quality
    torn = Path(f"{again}.ratings.jsonl")
    torn.write_bytes(b"".join(lines[:5]) + lines[5][:-9])
    data = make(src, again, count=3)
    assert asked == [f"{number:06d}.jpg" for number in range(5, 10)]
    assert torn.read_bytes() == file.read_bytes()
    assert data.hash == whole.hash
    asked.clear()
    assert kept(src, make(src, out.with_name("more"), count=5)) != []
    assert len(asked) == 9  # another --out has its own file


def test_another_count_rates_nothing_again(src, small, out, monkeypatch):
    make(src, out, count=3)
    os.rename(out, out.with_name("first"))
    monkeypatch.setattr(celebahq, "photo_quality", len)  # would fail on a photograph
    assert len(make(src, out, count=5)) == 5


def test_ratings_of_other_options_are_refused(src, small, out):
    make(src, out, count=3)
    os.rename(out, out.with_name("first"))
    (src / "Anno/list_landmarks_celeba.txt").write_text(landmarks_text(["000001.jpg"]))
    with pytest.raises(DataError, match=r"out\.ratings\.jsonl: was made with another landmarks_sha256; delete it"):
        make(src, out, count=3)


@pytest.mark.parametrize(
    "line", ['{"file": "a.jpg"}', "nonsense", "[]", '{"file": "a.jpg", "quality": NaN}', '{"file": 1, "quality": "x"}']
)
def test_damaged_ratings_are_refused_by_line(tmp_path, line):
    path = tmp_path / "ratings.jsonl"
    path.write_text(f'{{}}\n{{"file": "b.jpg", "quality": 1.0}}\n{line}\n')
    with pytest.raises(DataError, match=r"ratings\.jsonl, line 3: is no rating; delete that line or the file"):
        rate({}, len, path=path, recipe={})


def test_photographs_that_cannot_be_rated_are_named_and_tried_again(src, small, out):
    broken = src / "img_celeba/000003.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-500])
    (src / "img_celeba/extra.jpg").write_bytes(whole)
    with pytest.raises(DataError, match="2 of 10 pictures cannot be used"):
        make(src, out, on_bad="fail")
    data = make(src, out)
    left_out = {bad["file"]: bad["reason"] for bad in data.manifest["source"]["left_out"]}
    assert left_out.keys() == {"000003.jpg", "extra.jpg"}
    assert "truncated" in left_out["000003.jpg"]
    assert left_out["extra.jpg"] == "is not in Anno/list_landmarks_celeba.txt"
    assert len(data) == 8
    os.rename(out, out.with_name("first"))
    broken.write_bytes(whole)
    assert len(make(src, out)) == 9


def test_an_out_that_holds_files_is_refused_before_the_rating(src, small, out):
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(DataError, match="already holds files"):
        make(src, out)
    assert not Path(f"{out}.ratings.jsonl").exists()


def test_a_quality_that_is_no_number_is_no_rating(src, monkeypatch):
    quality = pytest.importorskip("progan.data.celebahq.quality")
    monkeypatch.setattr(quality, "quality", lambda image: float("nan"))
    result = photo_quality(Photo(src / "img_celeba/000001.jpg", np.float32(FACE)), enhance="lanczos", native=SIZE)
    assert result == BadImage("000001.jpg", "its quality is no number")
