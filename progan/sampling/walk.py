"""Walks through latent space: what the network makes of the points between two images (paper section 6, video)."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from progan.data.pictures.decode import open_picture
from progan.data.source import BadImageError
from progan.images import make_grid
from progan.networks import Generator, check_stage
from progan.sampling.images import one_hot, sample, seed_latents
from progan.support.device import pick_device
from progan.support.errors import ConfigError, RunError
from progan.support.rng import latents

FRAMES_AT_ONCE = 16
LARGEST = 8192  # pixels of a picture each way: more than that few players show


def random_walk(seed: int, walkers: int, frames: int, dim: int, smoothing: float) -> Tensor:
    """Random latents, smoothed over time, whose end meets their beginning: float32 [frames, walkers, dim].

    Every frame is drawn from N(0, 1), filtered by a Gaussian of `smoothing` frames and brought back to a mean square of
    1. A walker's path depends on its number, not on how many there are.
    """
    noise = torch.stack([latents(seed, "random walk", walker, frames, dim) for walker in range(walkers)], dim=1)
    frequency = torch.arange(frames // 2 + 1) / frames  # in cycles per frame
    response = torch.exp(-2 * (math.pi * smoothing * frequency) ** 2)
    walk = torch.fft.irfft(torch.fft.rfft(noise, dim=0) * response[:, None, None], n=frames, dim=0)
    return walk / walk.square().mean(dim=(0, 2), keepdim=True).sqrt()


def round_trip(points: Tensor, frames: int, start: int = 0) -> Tensor:
    """Through all points in turn and back to the first, along great circles, at even pace: [frames, dim].

    points: [K, dim], K >= 2; start: the point to begin with. Between two points the norm changes evenly too.
    """
    return on_round_trip(points, _positions(len(points), frames, start))


def on_round_trip(points: Tensor, positions: Tensor) -> Tensor:
    """Places on the way of `round_trip`: [F, dim]. positions: [F], 2.25 is a quarter of the way from point 2 to 3."""
    leg, share = _legs(len(points), positions)
    here, there = points[leg], points[(leg + 1) % len(points)]
    norms = here.norm(dim=1, keepdim=True), there.norm(dim=1, keepdim=True)
    cosine = (here * there).sum(dim=1, keepdim=True) / (norms[0] * norms[1])
    angle = cosine.clamp(-1, 1).acos().clamp(1e-4, math.pi - 1e-4)  # the same point twice divides by no 0
    weights = torch.sin((1 - share) * angle) / angle.sin(), torch.sin(share * angle) / angle.sin()
    return torch.lerp(*norms, share) * (weights[0] * here / norms[0] + weights[1] * there / norms[1])


def cross_fade(labels: Tensor, positions: Tensor) -> Tensor:
    """Labels [K, label_dim] that turn into one another on the way: [F, label_dim]. positions: as `on_round_trip`'s."""
    leg, share = _legs(len(labels), positions)
    return torch.lerp(labels[leg], labels[(leg + 1) % len(labels)], share)


def walk_frames(
    g: Generator,
    *,
    frames: int,
    smoothing: float,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    points: tuple[Tensor, Sequence[int]] | None = None,
    grid: tuple[int, int] = (1, 1),
    pixels: int = 512,
    resolution: int | None = None,
    alpha: float = 1.0,
    device: str = "auto",
) -> Iterator[Image.Image]:
    """The pictures of a walk, each a grid of (columns, rows) images; the last leads over to the first.

    A random walk of `seed`, or a round trip through the images of `seeds`, or of `points`, latents [K, z_dim] and their
    classes; each cell of the grid starts the trip one image after the cell before. smoothing: in frames, of the random
    walk. pixels: pictures that are narrower are enlarged by a whole factor that makes them at least as wide. A network
    with labels shows class cell % classes in a random walk, and the classes of the images in a round trip. Raises
    ConfigError for a resolution or alpha that the network does not have, for fewer than two images, and for pictures
    too large for a video.
    """
    resolution = check_stage(g.config, resolution, alpha)
    scale = max(1, -(-pixels // (grid[0] * resolution)))
    if max(grid) * resolution * scale > LARGEST:
        width, height = (side * resolution * scale for side in grid)
        raise ConfigError(f"--grid, --pixels: pictures of {width}x{height} are too large; {LARGEST} at most each way")
    cells, classes = grid[0] * grid[1], g.config.label_dim
    if seeds is not None:
        points = seed_latents(seeds, g.config.z_dim), [s % max(1, classes) for s in seeds]
    labels = None  # [frames, cells, classes]
    if points is None:
        z = random_walk(seed, cells, frames, g.config.z_dim, smoothing)
        of_cells = one_hot([cell % max(1, classes) for cell in range(cells)], classes)
        labels = None if of_cells is None else of_cells.expand(frames, -1, -1)
    elif len(points[0]) < 2:
        given, such = ("--latents", "a.npz,b.npz") if seeds is None else ("--seeds", "3,7,12")
        raise ConfigError(f"{given}: a round trip needs at least two images, such as {such}")
    else:
        z = torch.stack([round_trip(points[0], frames, cell) for cell in range(cells)], dim=1)
        of_points = one_hot(points[1], classes)
        if of_points is not None:
            at = [_positions(len(of_points), frames, cell) for cell in range(cells)]
            labels = torch.stack([cross_fade(of_points, positions) for positions in at], dim=1)
    g.to(pick_device(device))
    for start in range(0, frames, FRAMES_AT_ONCE):
        some = slice(start, start + FRAMES_AT_ONCE)
        y = None if labels is None else labels[some].flatten(0, 1)
        images = sample(g, z[some].flatten(0, 1), y, resolution=resolution, alpha=alpha)
        for image in images.reshape(-1, cells, *images.shape[1:]):
            yield make_grid(image, *grid, scale=scale)


def growth_frames(pictures: Sequence[Path], frames: int) -> Iterator[Image.Image]:
    """The pictures of a run's progress in turn, each equally long. pictures: in order; the last says the size of all.

    Raises RunError for one that is damaged, and when they are too large for a video.
    """
    size = _opened(pictures[-1]).size
    if max(size) > LARGEST:
        raise RunError(f"{pictures[-1]}: {size[0]}x{size[1]} is too large for a video; {LARGEST} at most each way")
    for frame in range(frames):
        picture = _opened(pictures[frame * len(pictures) // frames])
        yield picture if picture.size == size else picture.resize(size, Image.Resampling.NEAREST)


def _opened(path: Path) -> Image.Image:
    try:
        return open_picture(path)
    except BadImageError as error:
        raise RunError(f"{path}: cannot be shown ({error}); delete it") from None


def _positions(points: int, frames: int, start: int) -> Tensor:
    return torch.arange(frames, dtype=torch.float64) * points / frames + start


def _legs(points: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    """For each place on a round trip, the point behind it, [F], and how far it is to the next, [F, 1]."""
    return positions.long() % points, positions.frac().float()[:, None]
