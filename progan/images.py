"""Dynamic range, box-down, nearest-up, fades and picture grids."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from progan.support.files import write_whole


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1], the range that G writes and D reads."""
    return images.to(torch.float32) / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255], rounded to nearest and clipped."""
    return ((images.float() + 1.0) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


def box_down(images: Tensor) -> Tensor:
    """Halve the resolution by the mean of 2x2 boxes: [N, C, 2R, 2R] -> [N, C, R, R]."""
    return F.avg_pool2d(images, 2)


def nearest_up(images: Tensor) -> Tensor:
    """Double the resolution by repeating pixels: [N, C, R, R] -> [N, C, 2R, 2R]."""
    return F.interpolate(images, scale_factor=2, mode="nearest")


def is_fading(alpha: float | Tensor) -> bool:
    """Whether a new block is blended in; a tensor is not looked at, for that would wait for the device."""
    return isinstance(alpha, Tensor) or alpha < 1.0


def blend(old: Tensor, new: Tensor, alpha: float | Tensor) -> Tensor:
    """old + (new - old) alpha, the fade of a new block (figure 2).

    old, new: one shape and dtype, which the result has; alpha: 0 to 1, a number or a float32 scalar.
    """
    if isinstance(alpha, Tensor) and alpha.dtype != new.dtype:
        return torch.lerp(old.to(alpha.dtype), new.to(alpha.dtype), alpha).to(new.dtype)  # alpha is not to be rounded
    return torch.lerp(old, new, alpha)


def fade_reals(images: Tensor, alpha: float | Tensor) -> Tensor:
    """Fade real images in with the newest block, so that D never sees detail that G cannot make yet (figure 2).

    images: [N, C, R, R]; alpha: 0 shows what R / 2 can show, 1 the images themselves.
    """
    if not is_fading(alpha):
        return images
    return blend(nearest_up(box_down(images)), images, alpha)


def mirror(images: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Flip the chosen images left to right: [N, C, R, R] with flips bool [N]; returns a copy."""
    return np.where(flips[:, None, None, None], images[..., ::-1], images)


def make_grid(images: np.ndarray, columns: int, rows: int, scale: int = 1) -> Image.Image:
    """One picture of `columns` x `rows` images, row by row, each pixel `scale` pixels wide; missing cells are black.

    images: uint8 [N, C, R, R] with 1 to 4 channels (as gray, gray + alpha, RGB, RGBA), N <= columns * rows.
    """
    count, channels, size, _ = images.shape
    cells = np.zeros((rows * columns, channels, size, size), np.uint8)
    cells[:count] = images
    sheet = cells.reshape(rows, columns, channels, size, size).transpose(0, 3, 1, 4, 2)
    picture = to_pil(np.ascontiguousarray(sheet.reshape(rows * size, columns * size, channels).transpose(2, 0, 1)))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def to_pil(image: np.ndarray) -> Image.Image:
    """uint8 [C, H, W] with 1 to 4 channels -> a Pillow image of mode L, LA, RGB or RGBA."""
    pixels = image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    return Image.fromarray(pixels)


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a PNG file, whole or not at all."""
    write_whole(path, lambda file: picture.save(file, format="PNG"))
