"""From seeds and latents to pictures."""

import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from progan.config import GeneratorConfig
from progan.images import make_grid, nearest_up, to_pil, to_uint8, write_png
from progan.networks import Generator, check_stage
from progan.support.arithmetic import number_format
from progan.support.device import pick_device
from progan.support.errors import ConfigError, DataError, printable
from progan.support.files import make_folder, write_whole
from progan.support.hub import weights_file
from progan.support.plain_files import read_plain
from progan.support.rng import latents
from progan.weights import load_network

PIXELS_AT_ONCE = 4 * 1024 * 1024  # what a batch holds at most, so that memory stays bounded at every resolution

MOST_GRID_PIXELS = 2**29
LATENT_BYTES = 2**20  # of a file of one latent, which has 3 kB


def load_generator(
    source: str | os.PathLike[str], *, resolution: int | None = None, alpha: float | None = None
) -> tuple[Generator, dict[str, Any]]:
    """A trained generator (the moving average) on the CPU, and its stage, for its call and for `sample`.

    source: a run folder, of which the newest is taken, a weights file, or hf://OWNER/NAME, at a revision with
    @REVISION. The stage is resolution and alpha, as far as the network had grown, or as asked for. Raises RunError when
    there is none or it is damaged, ConfigError for a stage that it does not have, and UserError when the hub cannot be
    asked.
    """
    g, about = load_network(weights_file(source), "generator")
    grown = int(about.get("resolution", g.config.resolution))
    if alpha is None:
        alpha = float(about.get("alpha", 1.0)) if resolution in (None, grown) else 1.0
    resolution = check_stage(g.config, grown if resolution is None else resolution, alpha)
    return g.requires_grad_(False), {"resolution": resolution, "alpha": alpha}


def seed_latents(seeds: Sequence[int], dim: int) -> Tensor:
    """The latent of each seed, the same on every machine: float32 [N, dim]."""
    return torch.cat([latents(seed, "generate", 0, 1, dim) for seed in seeds])


def one_hot(classes: Sequence[int], label_dim: int) -> Tensor | None:
    """float32 [N, label_dim], or None for a network without labels."""
    return F.one_hot(torch.tensor(classes), label_dim).float() if label_dim else None


def class_names(known: list[str] | None, classes: int) -> list[str]:
    """What the classes of a network are called: as its data calls them, or "class 0" and so on."""
    return known or [f"class {number}" for number in range(classes)]


def save_latent(path: Path, z: Tensor, label: int | None) -> None:
    """Write one latent, [z_dim], and its class as an .npz file, whole or not at all; without classes label is -1."""
    arrays = {"z": z.numpy(), "label": np.array(-1 if label is None else label)}
    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read_latent(path: Path, config: GeneratorConfig) -> tuple[Tensor, int | None]:
    """The latent, float32 [z_dim], and its class or None, that save_latent wrote for a generator of this configuration.

    Raises DataError when there is no such file, when it is damaged, or of another network.
    """
    try:
        content = read_plain(path, LATENT_BYTES)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > LATENT_BYTES:
                raise ValueError("it unpacks to more than a latent has")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            z, label = arrays["z"], arrays["label"]
        if z.dtype != np.float32 or z.ndim != 1 or label.dtype.kind != "i" or label.ndim or not np.isfinite(z).all():
            raise ValueError("it holds no float32 z and no label")
    except Exception as error:  # a damaged file raises almost anything
        raise DataError(
            f"{path}: cannot be read as a latent ({printable(error)}); give an .npz file of progan project"
        ) from None
    classes = config.label_dim
    if len(z) != config.z_dim or not (0 <= label < classes if classes else label == -1):
        raise DataError(
            f"{path}: a latent of {len(z)} numbers and class {label} is another network's, for this one takes"
            f" {config.z_dim} and {f'0 to {classes - 1}' if classes else '-1'}; project the picture with this one"
        )
    return torch.from_numpy(z), int(label) if classes else None


def sample(g: Generator, z: Tensor, labels: Tensor | None = None, **how: Any) -> np.ndarray:
    """All images at once: uint8 [N, C, R, R]. Arguments as for `sample_batches`."""
    return np.concatenate(list(sample_batches(g, z, labels, **how)))


@torch.no_grad()
def sample_batches(
    g: Generator,
    z: Tensor,
    labels: Tensor | None = None,
    *,
    resolution: int | None = None,
    alpha: float = 1.0,
    full_size: bool = False,
    batch: int | None = None,
) -> Iterator[np.ndarray]:
    """Images for latents, a batch of bounded memory at a time: uint8 [n, C, R, R].

    z: [N, latent_dim]; labels: one-hot [N, label_dim]; resolution: pixels, the full resolution by default; alpha: the
    weight of the newest block; full_size: repeat pixels up to the full resolution; batch: images at a time.
    Always in float32, all of it, on every device and whatever the network was trained in: images are what they are.
    """
    device = next(g.parameters()).device
    resolution = resolution or g.config.resolution
    batch = batch or max(1, min(64, PIXELS_AT_ONCE // resolution**2))
    for start in range(0, len(z), batch):
        part = slice(start, start + batch)
        y = None if labels is None else labels[part].to(device)
        with number_format("fp32"):  # not around the loop: between two batches others compute
            images = to_uint8(g(z[part].to(device), y, resolution=resolution, alpha=alpha))
        while full_size and images.shape[-1] < g.config.resolution:
            images = nearest_up(images)
        yield images.cpu().numpy()


def write_images(
    source: Path,
    out: Path,
    seeds: Sequence[int],
    *,
    classes: Sequence[int] | None = None,
    grid: tuple[int, int] | None = None,
    resolution: int | None = None,
    alpha: float | None = None,
    device: str = "auto",
) -> int:
    """Write seed0000.png, ... into `out`, and grid.png of (columns, rows) on request. Returns the number of images.

    source: as for `load_generator`. resolution and alpha: as far as the network has grown, by default. classes:
    one image per seed and class, for a network with labels; by default each seed has its own class. Raises ConfigError
    for a resolution, alpha, class or grid that does not fit.
    """
    g, stage = load_generator(source, resolution=resolution, alpha=alpha)
    jobs = _jobs(g, seeds, classes)
    if grid is not None and len(jobs) > grid[0] * grid[1]:
        raise ConfigError(
            f"--grid: {grid[0]}x{grid[1]} is too small for {len(jobs)} images; ask for fewer, or more room"
        )
    if grid is not None and grid[0] * grid[1] * stage["resolution"] ** 2 > MOST_GRID_PIXELS:
        raise ConfigError(f"--grid: {grid[0]}x{grid[1]} at this resolution is over 2^29 pixels; ask for a smaller one")
    g.to(pick_device(device))
    z = seed_latents([seed for seed, _ in jobs], g.config.z_dim)
    labels = one_hot([label or 0 for _, label in jobs], g.config.label_dim)
    make_folder("--out", out)
    cells, done = [], 0
    for images in sample_batches(g, z, labels, **stage):
        for image in images:
            seed, label = jobs[done]
            name = f"seed{seed:04d}" + ("" if classes is None else f"-class{label}")
            write_png(out / f"{name}.png", to_pil(image))
            done += 1
        if grid is not None:
            cells.append(images)
    if grid is not None:
        write_png(out / "grid.png", make_grid(np.concatenate(cells), *grid))
    return done


def _jobs(g: Generator, seeds: Sequence[int], classes: Sequence[int] | None) -> list[tuple[int, int | None]]:
    """(seed, class) of each image."""
    count = g.config.label_dim
    if classes is None:
        return [(seed, seed % count if count else None) for seed in seeds]
    if not count:
        raise ConfigError("--labels: this network has no labels; leave the option out")
    if max(classes) >= count:
        raise ConfigError(f"--labels: {max(classes)} is not a class of this network; use 0-{count - 1}")
    return [(seed, label) for seed in seeds for label in classes]
