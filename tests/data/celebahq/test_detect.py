import sys

import numpy as np
import pytest
from PIL import Image

from progan.data.celebahq import detect
from progan.data.celebahq.align import align, square_side
from progan.data.celebahq.detect import check_detector, find_faces, five_points
from progan.support.errors import DataError
from tests.data.celebahq.test_align import known_landmarks
from tests.packages import photographs

pytest.importorskip("dlib", reason="finds faces by dlib")
pytest.importorskip("scipy", reason="aligning faces needs scipy")
if not detect.find_spec("face_recognition_models"):
    pytest.skip("needs the landmark model of face-recognition-models", allow_module_level=True)

# What a person sees: left eye, right eye, the middle of the mouth, in pixels.
SEEN = {
    "astronaut": [(204, 102), (247, 104), (225, 142)],
    "hopper": [(221, 194), (311, 190), (269, 281)],
}


def photo(name: str) -> Image.Image:
    with Image.open(photographs()[name]) as opened:
        return opened.convert("RGB")


@pytest.mark.parametrize("name", SEEN)
def test_one_face_is_found_where_it_is(name):
    (landmarks,) = find_faces(photo(name))
    found = np.array([landmarks[0], landmarks[1], (landmarks[3] + landmarks[4]) / 2])
    assert found == pytest.approx(np.array(SEEN[name]), abs=0.02 * square_side(landmarks))


@pytest.mark.parametrize("name", ["takeo", "lenna"])
def test_landmarks_are_those_that_people_set(name):
    (landmarks,) = find_faces(photo(name))
    known = known_landmarks(photographs()[name])
    side = square_side(known)
    assert square_side(landmarks) == pytest.approx(side, rel=0.03)
    assert np.linalg.norm(landmarks - known, axis=1).max() < 0.025 * side


@pytest.mark.parametrize("turn", [-15, 15])
@pytest.mark.parametrize("scale", [0.6, 2.5])
def test_landmarks_follow_the_photograph(turn, scale):
    picture = photo("astronaut")
    (landmarks,) = find_faces(picture)
    moved = picture.rotate(turn, Image.Resampling.BICUBIC, center=(226, 120))
    moved = moved.resize((round(512 * scale),) * 2, Image.Resampling.LANCZOS)
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    expected = ((landmarks - [226, 120]) @ rotation.T + [226, 120]) * scale
    (found,) = find_faces(moved)
    assert np.linalg.norm(found - expected, axis=1).max() < 0.03 * square_side(expected)


def test_several_faces_come_largest_first():
    sheet = Image.new("RGB", (1300, 600), "gray")
    sheet.paste(photo("astronaut").crop((100, 0, 400, 260)), (50, 100))
    sheet.paste(photo("hopper"), (700, 0))
    first, second = find_faces(sheet)
    assert first[:, 0].min() > 700
    assert second[:, 0].max() < 350
    assert square_side(first) > square_side(second)


def test_what_is_no_face_is_not_found():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8))
    upside_down = photo("hopper").rotate(180)
    badges = photo("astronaut").crop((0, 250, 512, 512))  # dlib alone sees a face in one of them
    for picture in (Image.new("RGB", (1, 1)), Image.new("RGB", (5000, 3), "white"), noise, upside_down, badges):
        assert find_faces(picture) == []


def test_a_second_look_drops_what_dlib_takes_for_a_face(monkeypatch):
    monkeypatch.setattr(detect, "_second_look", lambda picture, landmarks, model: landmarks)
    assert len(find_faces(photo("astronaut"))) > 1  # so the test above tests something


def test_a_face_is_found_again_in_its_aligned_picture():
    picture = photo("takeo")
    (landmarks,) = find_faces(picture)
    (again,) = find_faces(align(picture, landmarks, resolution=512))
    assert square_side(again) == pytest.approx(512, rel=0.04)


def test_five_points_are_in_celebas_order():
    points = np.zeros((68, 2))
    points[36:42, 0], points[42:48, 0] = np.arange(6), np.arange(6) + 10
    points[[30, 48, 54]] = [[7, 5], [3, 9], [11, 9]]
    assert five_points(points).tolist() == [[2.5, 0], [12.5, 0], [7, 5], [3, 9], [11, 9]]


def test_a_model_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.dat").write_bytes(b"no model")
    for file in (tmp_path / "model.dat", tmp_path / "missing.dat", tmp_path):
        with pytest.raises(DataError, match="cannot be read as"):
            check_detector(file)


def test_the_model_with_five_points_is_refused():
    five = detect._packaged_model().with_name("shape_predictor_5_face_landmarks.dat")
    with pytest.raises(DataError, match="68"):
        check_detector(five)


def test_missing_packages_are_named(monkeypatch):
    detect._models.cache_clear()
    monkeypatch.setattr(detect, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'face-recognition-models; run: pip install "progan\[photos\]"'):
        check_detector()
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(DataError, match=r'dlib; run: pip install "progan\[photos\]"'):
        check_detector()
