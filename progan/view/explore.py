"""Pictures that the viewer asks for: any snapshot of a run, at any stage of growing, and what lies nearest to one."""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from progan.data.store.pyramid import ImagePyramid
from progan.export.directions import directions
from progan.export.plan import plan
from progan.images import box_down, make_grid, nearest_up, to_pil
from progan.metrics.neighbours import nearest
from progan.networks import Generator, check_stage
from progan.sampling.images import load_generator, one_hot, sample, seed_latents
from progan.sampling.walk import cross_fade, on_round_trip
from progan.support.device import pick_device
from progan.support.errors import ConfigError, UserError

KEPT_NETWORKS = 2
MOST_PICTURES = 64  # of one request
MOST_PIXELS = 2**23
NEAREST = 8
SEARCHED_BYTES = 2**29  # of float32 pixels; a larger data set is searched at a lower resolution
MOST_SEEDS = 8  # of a walk


@dataclass(frozen=True)
class Point:
    """A place among the latents: a seed's, or on the round trip through several; position: 0 to 1, once around."""

    seeds: tuple[int, ...]
    position: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Point":
        """'3', or '3~5~9~0.5' for the middle of the round trip through 3, 5 and 9. Raises ConfigError."""
        try:
            *words, last = text.split("~")
            seeds = tuple(int(word) for word in words or [last])
            position = float(last) if words else 0.0
            if len(seeds) > MOST_SEEDS or not 0 <= position <= 1 or not all(0 <= seed < 2**53 for seed in seeds):
                raise ValueError
        except ValueError:
            raise ConfigError(
                f"point: give a seed such as 3, or up to {MOST_SEEDS} and a position from 0 to 1 such as 3~5~9~0.5"
            ) from None
        return cls(seeds, position)

    def latent(self, dim: int) -> Tensor:
        """[1, dim]."""
        latents = seed_latents(self.seeds, dim)
        return latents if len(self.seeds) == 1 else on_round_trip(latents, self._way)

    def label(self, classes: int) -> Tensor | None:
        """Each seed's own class, seed % classes, turning into the next one's: [1, classes]."""
        labels = one_hot([seed % max(1, classes) for seed in self.seeds], classes)
        return None if labels is None else cross_fade(labels, self._way)

    @property
    def _way(self) -> Tensor:
        return torch.tensor([self.position * len(self.seeds)], dtype=torch.float64)


@dataclass(frozen=True)
class Wish:
    """What is to be drawn: points, moved along the directions, at a stage; label: of all, or None: each its own."""

    points: tuple[Point, ...]
    resolution: int
    alpha: float
    moves: tuple[float, ...] = ()
    label: int | None = None


class Explorer:
    """Draws on one device, one picture after the other; the last networks that were used stay in memory."""

    def __init__(self, device: str = "auto") -> None:
        self.device = pick_device(device)
        self._lock = threading.Lock()
        self._networks: OrderedDict[tuple[Path, int], tuple[Generator, dict[str, Any], Tensor]] = OrderedDict()
        self._pixels: tuple[Path, int, np.ndarray] | None = None

    def about(self, path: Path) -> dict[str, Any]:
        """A weights file for the page: {"resolutions", "stage", "channels", "classes", "directions"}."""
        g, stage, along = self._network(path)
        config = g.config
        grown = [r for r in config.resolutions if r <= stage["resolution"]]
        about = {"resolutions": grown, "stage": stage, "channels": config.channels, "classes": config.label_dim}
        return about | {"directions": len(along)}

    def draw(self, path: Path, wish: Wish, columns: int) -> bytes:
        """The pictures side by side, as a PNG. Raises ConfigError for a wish that the network cannot grant."""
        return _png(make_grid(self._images(path, wish), columns, -(-len(wish.points) // columns)))

    def branches(self, path: Path, wish: Wish) -> bytes:
        """Figure 2 of the paper for one point: the older layers' picture, doubled, the newer ones', and their blend."""
        half = Wish(wish.points, max(4, wish.resolution // 2), 1.0, wish.moves, wish.label)
        newer = Wish(wish.points, wish.resolution, 1.0, wish.moves, wish.label)
        older = torch.from_numpy(self._images(path, half))
        if wish.resolution > 4:
            older = nearest_up(older)
        pictures = [older.numpy(), self._images(path, newer), self._images(path, wish)]
        return _png(make_grid(np.concatenate(pictures), 3, 1))

    def neighbours(self, path: Path, wish: Wish, data: ImagePyramid) -> tuple[list[float], list[int], int]:
        """The nearest training images: distances, their numbers, and the resolution at which they were compared.

        The distance is the root of the mean squared difference of pixels, 0 to 255. It tells copies from new pictures;
        what looks alike to people may be farther.
        """
        at, base = self._searched(data, wish.resolution)
        query = torch.from_numpy(self._images(path, wish)[:1]).float()
        while query.shape[-1] > at:
            query = box_down(query)
        found, distances = nearest(query.reshape(1, -1).numpy(), base, min(NEAREST, len(base)))
        return (distances[0] / np.sqrt(base.shape[1])).tolist(), found[0].tolist(), at

    def _searched(self, data: ImagePyramid, resolution: int) -> tuple[int, np.ndarray]:
        """All images at a resolution that leaves them in bounds: that, and float32 [N, C * r * r]."""
        fitting = [r for r in data.resolutions if 4 * len(data) * data.channels * r * r <= SEARCHED_BYTES]
        at = max((r for r in fitting if r <= min(32, resolution)), default=4)
        with self._lock:
            if self._pixels is None or self._pixels[:2] != (data.path, at):
                pixels = data.read(np.arange(len(data)), at).reshape(len(data), -1).astype(np.float32)
                self._pixels = (data.path, at, pixels)
            return at, self._pixels[2]

    def _images(self, path: Path, wish: Wish) -> np.ndarray:
        g, stage, along = self._network(path)
        resolution = check_stage(g.config, wish.resolution, wish.alpha)
        if resolution > stage["resolution"]:
            raise ConfigError(f"resolution: {resolution} has not been learned yet; use {stage['resolution']} or less")
        if len(wish.points) > MOST_PICTURES or len(wish.points) * resolution**2 > max(MOST_PIXELS, resolution**2):
            raise ConfigError(f"points: {len(wish.points)} pictures are too many at once; ask for fewer")
        if len(wish.moves) > len(along):
            raise ConfigError(f"moves: there are {len(along)} directions; give as many numbers at most")
        classes = g.config.label_dim
        if wish.label is not None and not 0 <= wish.label < classes:
            raise ConfigError(f"label: {wish.label} is not a class of this network")
        z = torch.cat([point.latent(g.config.z_dim) for point in wish.points])
        for by, direction in zip(wish.moves, along, strict=False):
            z = z + by * direction
        if wish.label is None:
            own = [label for point in wish.points if (label := point.label(classes)) is not None]
            labels = torch.cat(own) if own else None
        else:
            labels = one_hot([wish.label] * len(wish.points), classes)
        with self._lock:
            return sample(g, z, labels, resolution=resolution, alpha=wish.alpha)

    def _network(self, path: Path) -> tuple[Generator, dict[str, Any], Tensor]:
        key = (path, path.stat().st_mtime_ns)
        with self._lock:
            if key not in self._networks:
                g, stage = load_generator(path)
                along = directions(plan(g, stage["resolution"]))
                self._networks[key] = (g.to(self.device), stage, along)
                while len(self._networks) > KEPT_NETWORKS:
                    self._networks.popitem(last=False)
            self._networks.move_to_end(key)
            return self._networks[key]


def parse_wish(fields: dict[str, str], stage: dict[str, Any]) -> Wish:
    """A wish from the words of an address; what is left out is as far as the network has grown. Raises ConfigError."""
    try:
        moves = tuple(float(word) for word in fields.get("moves", "").split(",") if word)
        resolution, alpha = (
            int(fields.get("resolution", stage["resolution"])),
            float(fields.get("alpha", stage["alpha"])),
        )
        label = int(fields["label"]) if fields.get("label") else None
    except ValueError:
        raise ConfigError("moves, resolution, alpha, label: are numbers") from None
    if not all(abs(move) <= 100 for move in moves):
        raise ConfigError("moves: use -100 to 100")
    points = tuple(Point.parse(word) for word in fields.get("points", "0").split(","))
    return Wish(points, resolution, alpha, moves, label)


def picture_of(data: ImagePyramid, number: int, resolution: int) -> bytes:
    """One image of a data set as a PNG. Raises ConfigError when there is none."""
    if not 0 <= number < len(data) or resolution not in data.resolutions:
        raise ConfigError(f"number, resolution: the data set has {len(data)} images of {data.resolutions} pixels")
    return _png(to_pil(data.read(np.array([number]), resolution)[0]))


def thumbnail(content: bytes, side: int) -> bytes:
    """The upper left corner of a grid, whole pictures in at most `side` pixels. Raises UserError for a damaged one."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            corner = min(picture.size)
            while corner > side and corner % 2 == 0:
                corner //= 2
            return _png(picture.crop((0, 0, corner, corner)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError("this picture cannot be read") from None


def _png(picture: Image.Image) -> bytes:
    memory = io.BytesIO()
    picture.save(memory, "PNG", compress_level=1)  # it goes no farther than to this machine's browser
    return memory.getvalue()
