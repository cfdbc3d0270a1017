"""Face alignment of CelebA-HQ (paper appendix C): from a photograph and five landmarks to an upright square face.

At 1024x1024 every step, its order and its rounding are those of the official tool, since the released deltas are
differences to its pictures. Other resolutions are the same geometry with that resolution in place of 1024.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from progan.data.source import BadImageError
from progan.support.errors import DataError

Enlarge = Callable[[Image.Image, int], Image.Image]  # makes an RGB picture larger, by a power of two

OVERSAMPLING = 4  # the face is cut out at four times the resolution, then filtered down


def lanczos_enlarge(picture: Image.Image, factor: int) -> Image.Image:
    """Plain Lanczos, which the released deltas start from; it adds no detail."""
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.LANCZOS)


def oriented_square(landmarks: np.ndarray) -> np.ndarray:
    """The square of a photograph that becomes the aligned face (paper appendix C).

    landmarks: [5, 2], (x, y) in pixels, in CelebA's order: left eye, right eye, nose, left and right mouth corner,
    left and right as one sees them in an upright picture. Returns float32 [4, 2]: the face's upper left, lower left,
    lower right and upper right corner, the order of Pillow's QUAD.
    Raises BadImageError when a landmark is no finite number, and when eyes and mouth say nothing of what is up.
    """
    centre, x = _centre_and_half_axis(landmarks)
    y = _rot90(x)
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def square_side(landmarks: np.ndarray) -> float:
    """The side of `oriented_square` in pixels of the photograph."""
    return 2 * float(np.hypot(*_centre_and_half_axis(landmarks)[1]))


def align(
    picture: Image.Image, landmarks: np.ndarray, *, resolution: int = 1024, enlarge: Enlarge = lanczos_enlarge
) -> Image.Image:
    """Cut a face out of a photograph, upright (paper appendix C).

    picture: RGB. landmarks: as `oriented_square` takes them. `enlarge` is called, at most once, with the part of the
    photograph around a face that is smaller than the resolution. Returns RGB, resolution x resolution; what lies
    outside the photograph is its mirror image, more and more blurred and then fading to its median colour.
    Raises BadImageError as `oriented_square` does, and when the face lies outside the photograph.
    """
    quad, zoom = oriented_square(landmarks), resolution / square_side(landmarks)

    shrink = math.floor(0.5 / zoom)
    if shrink > 1:
        size = (round(picture.width / shrink), round(picture.height / shrink))
        if min(size) < 1:
            raise BadImageError("its landmarks lie outside the photograph")
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        quad /= np.float32(shrink)
        zoom *= shrink

    # Not scaled with the picture below: in the official tool the border keeps the pixels of before the enlarging.
    border = max(round(resolution * 0.1 / zoom), 3)
    left, top, right, bottom = _bounds(quad)
    left, top = max(left - border, 0), max(top - border, 0)
    right, bottom = min(right + border, picture.width), min(bottom + border, picture.height)
    if left >= right or top >= bottom:
        raise BadImageError("its landmarks lie outside the photograph")
    picture = picture.crop((left, top, right, bottom))
    quad -= np.array((left, top), np.float32)

    factor = 2 ** math.ceil(math.log2(zoom))
    if factor > 1:
        picture = enlarge(picture, factor)
        quad *= np.float32(factor)
        zoom /= factor

    left, top, right, bottom = _bounds(quad)
    pads = [left, top, picture.width - right, picture.height - bottom]  # how far the face is from each side
    pads = [max(border - inside, 0) for inside in pads]
    if max(pads) > border - 4:
        least = round(resolution * 0.3 / zoom)
        pads = [max(pad, least) for pad in pads]
        picture = _extend(picture, pads, blur=resolution * 0.02 / zoom)
        quad += np.array(pads[:2], np.float32)

    large = (OVERSAMPLING * resolution, OVERSAMPLING * resolution)
    corners = list((quad + np.float32(0.5)).flat)  # float32, the type Pillow then computes with
    picture = picture.transform(large, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return picture.resize((resolution, resolution), Image.Resampling.LANCZOS)


def _centre_and_half_axis(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square's centre, and its half-axis to the right of the face; both float32 [2], as in the official tool."""
    points = np.asarray(landmarks, np.float32)  # [5, 2]
    if not np.isfinite(points).all():
        raise BadImageError("a landmark is no finite number")
    eyes = (points[0] + points[1]) * np.float32(0.5) + np.float32(0.5)
    mouth = (points[3] + points[4]) * np.float32(0.5) + np.float32(0.5)
    eye_to_eye, eye_to_mouth = points[1] - points[0], mouth - eyes
    x = eye_to_eye - _rot90(eye_to_mouth)
    length = np.hypot(*x)
    if not length > 0:
        raise BadImageError("its landmarks say nothing of what is up")
    half = max(float(np.hypot(*eye_to_eye)) * 2.0, float(np.hypot(*eye_to_mouth)) * 1.8)
    return eyes + eye_to_mouth * np.float32(0.1), x / length * np.float32(half)


def _rot90(v: np.ndarray) -> np.ndarray:
    """A vector (x, y) turned by 90 degrees, from right to down."""
    return np.array([-v[1], v[0]], v.dtype)


def _bounds(quad: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box of whole pixels around the corners: left, top, right, bottom."""
    left, top = np.floor(quad.min(axis=0))
    right, bottom = np.ceil(quad.max(axis=0))
    return int(left), int(top), int(right), int(bottom)


def _extend(picture: Image.Image, pads: list[int], *, blur: float) -> Image.Image:
    """Mirror the picture by `pads` (left, top, right, bottom; in pixels, at least 1), blurred and faded outwards.

    `blur` is the Gaussian's sigma in pixels. One colour channel at a time, which bounds the memory.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise DataError('aligning faces needs the package scipy; run: pip install "progan[photos]"') from error

    left, top, right, bottom = pads
    across = _inside(left + picture.width + right, left, right)
    down = _inside(top + picture.height + bottom, top, bottom)
    outside = np.float32(1) - np.minimum(across[None, :], down[:, None])  # [H, W], 1 on the rim, 0 a pad away from it
    channels = []
    for channel in picture.split():
        pixels = np.pad(np.asarray(channel, np.float32), ((top, bottom), (left, right)), "reflect")  # [H, W]
        pixels += (ndimage.gaussian_filter(pixels, blur) - pixels) * np.clip(outside * 3 + 1, 0, 1)
        pixels += (np.median(pixels) - pixels) * np.clip(outside, 0, 1)
        channels.append(Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8)))
    return Image.merge("RGB", channels)


def _inside(length: int, before: int, after: int) -> np.ndarray:
    """float32 [length]: the distance from the nearer rim, in units of that side's pad."""
    position = np.arange(length, dtype=np.float32)
    return np.minimum(position / np.float32(before), (np.float32(length - 1) - position) / np.float32(after))
