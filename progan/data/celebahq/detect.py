"""Find faces in photographs, and the five landmarks of each, by dlib.

dlib's frontal detector proposes, its 68 landmarks make an aligned face as CelebA-HQ has them, and there detector and
landmarks run once more: what is no face isn't found again at the place where a face must be.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from progan.data.celebahq.align import align, oriented_square, square_side
from progan.data.source import BadImageError
from progan.support.errors import DataError
from progan.support.plain_files import check_plain

NEEDS_PHOTOS = 'finding faces needs the package {}; run: pip install "progan[photos]"'
MODEL_FILE = "shape_predictor_68_face_landmarks.dat"

SEARCH_SIDE = 1600  # pixels; longer photographs are shrunk for the search, which bounds time and memory
MOST_ENLARGED = 2.0  # small photographs are enlarged up to this, since the detector needs faces of 80 pixels

ALIGNED_SIDE = 256  # pixels of the aligned face that is looked at once more
ALIGNED_BOX = (56, 73, 200, 217)  # left, top, right, bottom of the detector's box there: where landmarks are best
BOX_TOLERANCE = 40  # pixels there
SURE = 0.5  # the detector's score there; faces have 0.6 and more
TOLERANCE = 0.1  # of the aligned face's side, by which a landmark may move in the second look

Box = tuple[int, int, int, int]


def find_faces(picture: Image.Image, *, model: Path | None = None) -> list[np.ndarray]:
    """The landmarks of every face that looks more or less into the camera, the largest face first.

    picture: RGB, any size. `model`: the file of dlib's 68-point shape predictor; by default the one that the package
    face-recognition-models brings. Returns arrays [5, 2] as `align` takes them, in pixels of the picture.
    Raises DataError when a package is missing or the model cannot be read.
    """
    scale = min(SEARCH_SIDE / max(picture.size), MOST_ENLARGED)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    searched = np.asarray(picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))
    faces: list[np.ndarray] = []
    for box in _boxes(searched, model, least=0.0):
        candidate = (_landmarks(searched, box, model) + 0.5) / scale - 0.5
        landmarks = _second_look(picture, candidate, model)
        if landmarks is not None and not any(_same_face(landmarks, face) for face in faces):
            faces.append(landmarks)
    return sorted(faces, key=square_side, reverse=True)


def check_detector(model: Path | None = None) -> None:
    """Load detector and landmarks. Raises DataError when a package is missing or the model cannot be read."""
    _models(model)


def _boxes(image: np.ndarray, model: Path | None, *, least: float) -> list[Box]:
    """Where faces may be in image, uint8 [H, W, 3], the surest first. `least`: the detector's score, usual are 0..2."""
    boxes, scores, _ = _models(model)[0].run(image, 0, least)
    by_score = sorted(zip(scores, boxes, strict=True), key=lambda found: -found[0])
    return [(box.left(), box.top(), box.right(), box.bottom()) for _, box in by_score]


def _landmarks(image: np.ndarray, box: Box, model: Path | None) -> np.ndarray:
    """The five landmarks [5, 2] of the face that fills the box, in pixels of the image."""
    import dlib

    points = _models(model)[1](image, dlib.rectangle(*box)).parts()
    return five_points(np.array([(point.x, point.y) for point in points]))


def five_points(points: np.ndarray) -> np.ndarray:
    """CelebA's five landmarks from the 68 of the iBUG scheme: [68, 2] -> float64 [5, 2]."""
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]])


def _second_look(picture: Image.Image, landmarks: np.ndarray, model: Path | None) -> np.ndarray | None:
    """The landmarks as the upright, well-sized face shows them; None when there is no face where it should be."""
    try:
        corners = oriented_square(landmarks).astype(np.float64)
        aligned = np.asarray(align(picture, landmarks, resolution=ALIGNED_SIDE))
    except BadImageError:
        return None
    boxes = np.array(_boxes(aligned, model, least=SURE)).reshape(-1, 4)
    if not (np.abs(boxes - ALIGNED_BOX) < BOX_TOLERANCE).all(axis=1).any():
        return None
    seen = (_landmarks(aligned, ALIGNED_BOX, model) + 0.5) / ALIGNED_SIDE
    origin, right, down = corners[0], corners[3] - corners[0], corners[1] - corners[0]
    moved = origin + seen[:, :1] * right + seen[:, 1:] * down  # [5, 2] in the picture
    return moved if _distance(moved, landmarks) < TOLERANCE * square_side(landmarks) else None


def _distance(landmarks: np.ndarray, others: np.ndarray) -> float:
    """The largest distance between landmarks of the same name."""
    return float(np.linalg.norm(landmarks - others, axis=1).max())


def _same_face(landmarks: np.ndarray, other: np.ndarray) -> bool:
    return _distance(landmarks, other) < square_side(other) / 4


@lru_cache(maxsize=1)
def _models(model: Path | None) -> tuple[Any, Any]:
    """dlib's face detector and shape predictor, loaded once in each process."""
    try:
        import dlib
    except ImportError as error:
        raise DataError(NEEDS_PHOTOS.format("dlib")) from error
    file = model or _packaged_model()
    try:
        check_plain(file)
        predictor = dlib.shape_predictor(str(file))
        points = predictor(np.zeros((8, 8), np.uint8), dlib.rectangle(0, 0, 7, 7)).num_parts
    except (OSError, RuntimeError, TypeError) as error:  # the last for a name that is no UTF-8
        raise DataError(f"{file}: cannot be read as a landmark model of dlib; pass its {MODEL_FILE}") from error
    if points != 68:
        raise DataError(f"{file}: finds {points} landmarks, not 68; pass dlib's {MODEL_FILE}")
    return dlib.get_frontal_face_detector(), predictor


def _packaged_model() -> Path:
    # Not imported: face_recognition_models itself needs pkg_resources, which setuptools no longer has.
    package = find_spec("face_recognition_models")
    if package is None or not package.submodule_search_locations:
        raise DataError(NEEDS_PHOTOS.format("face-recognition-models") + ", or pass --landmark-model FILE")
    return Path(package.submodule_search_locations[0]) / "models" / MODEL_FILE
