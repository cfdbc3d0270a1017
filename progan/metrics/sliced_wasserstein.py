"""Multi-scale sliced Wasserstein distance, SWD (paper section 5).

Two sets of images are compared by 7x7 patches of every level of their Laplacian pyramids: the finest level says
whether sharpness and noise are alike, the 16x16 one whether large structures are.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from progan.metrics.histogram import histogram_distance, projection_histograms
from progan.metrics.protocol import Collector, Images, Protocol, Statistics, check_same_shape, collect, rgb
from progan.metrics.threads import worker_threads
from progan.support.errors import ConfigError, DataError
from progan.support.rng import keyed_generator

PATCH = 7  # pixels
COARSEST = 16  # pixels of the last level, which is the low-pass image itself
PARTS = 8  # of a set of fakes, whose distances tell the spread
BLOCK = 64  # images
PIXELS_AT_ONCE = 16 * 128 * 128  # few enough for the cache, enough that threads seldom wait for the interpreter
PIXELS_AT_ONCE_ELSEWHERE = 64 * PIXELS_AT_ONCE  # a GPU wants much at once
PART_DIRECTIONS = 64  # are enough for the spread


@dataclass(frozen=True)
class SwdProtocol(Protocol):
    """The paper's: 16,384 images a set, 128 patches an image and level (2,097,152 descriptors), 4 x 128 directions."""

    name: ClassVar[str] = "swd"
    images: int = 16_384
    patches: int = 128
    directions: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("images", "patches", "directions"):
            if getattr(self, field) < 1:
                raise ConfigError(f"swd: {field} is {getattr(self, field)}; give 1 or more")

    @property
    def block(self) -> int:
        return max(1, min(BLOCK, self.images // PARTS))


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """What each scale adds to the next coarser one, and at last the 16x16 low-pass image.

    images: float [N, C, R, R], R a power of two from 16 up. Returns [N, C, r, r] for r = R, R/2, ..., 16, on the
    scale of `images`. 5x5 binomial filter, borders mirrored.
    """
    levels = []
    while images.shape[-1] > COARSEST:
        smaller = _down(images)
        levels.append(images - _up(smaller))
        images = smaller
    return [*levels, images]


def random_positions(count: int, patches: int, resolution: int, generator: torch.Generator) -> Tensor:
    """Upper left corners of random patches, uniform: int64 [count, patches, 2] of (row, column)."""
    return torch.randint(resolution - PATCH + 1, (count, patches, 2), generator=generator)


def descriptors(level: Tensor, positions: Tensor) -> Tensor:
    """The 7x7 patches at `positions`, as vectors ordered (channel, row, column).

    level: [N, C, r, r]; positions: [N, P, 2]. Returns [N * P, C * 49].
    """
    n, channels, r, _ = level.shape
    corner = torch.arange(n)[:, None] * (channels * r * r) + positions[..., 0] * r + positions[..., 1]  # [N, P]
    rows = torch.arange(channels)[:, None] * (r * r) + torch.arange(PATCH) * r  # [C, 7]
    starts = (corner.reshape(-1, 1) + rows.reshape(1, -1)).reshape(-1).to(level.device)
    # Every run of seven pixels in a row is one row of this view: 7 times fewer indices than pixel by pixel.
    runs = level.contiguous().view(-1).as_strided((level.numel() - PATCH + 1, PATCH), (1, 1))
    return runs.index_select(0, starts).view(n * positions.shape[1], channels * PATCH**2)


def normalize(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Descriptors [M, C * 49] with zero mean and unit variance in each of the C channels, given both as [C].

    A channel without any variance becomes zero.
    """
    y = x.view(len(x), len(mean), -1)
    return ((y - mean[:, None]) / torch.where(std > 0, std, torch.inf)[:, None]).view(x.shape)


def random_directions(protocol: SwdProtocol, dim: int) -> Tensor:
    """Unit vectors, uniform on the sphere: float32 [directions, dim]."""
    generator = keyed_generator(protocol.seed, "swd directions", dim)
    vectors = torch.randn(protocol.directions, dim, generator=generator)
    return vectors / vectors.square().sum(1, keepdim=True).sqrt()


def sliced_distance(a: Tensor, b: Tensor, directions: Tensor) -> np.ndarray:
    """Wasserstein-1 distance between the projections of two sets of vectors, along each direction: float64 [D].

    a: [M, dim]; b: [M', dim]; directions: [D, dim], unit vectors.
    """
    sets = [x.split(BLOCK * 128) for x in (a, b)]
    histograms = [projection_histograms([p.detach for p in x], [len(p) for p in x], directions) for x in sets]
    return histogram_distance(*histograms)


class SwdCollector(Collector):
    """Counts the projections of a set of images: {"128": [directions, BINS], "64": ..., ..., "16": ...}, unsigned.

    role: names the set. Sets of different roles have their patches in different places, as two sets must: common
    places would make them look more alike than they are. against: statistics of the reals; {"parts": float64
    [PARTS, levels]}, the mean distance of each eighth of the images to them, is then added.
    Memory: the descriptors of all levels, at most 1.2 GB a level in the paper's protocol, whatever the resolution.
    """

    def __init__(
        self,
        protocol: SwdProtocol,
        role: str = "reals",
        device: str | torch.device = "cpu",
        against: Statistics | None = None,
    ) -> None:
        super().__init__(protocol.images, protocol.block)
        self.protocol = protocol
        self.role = role
        self.device = torch.device(device)
        self.against = against
        self._blocks: list[int] = []  # images in each
        self._levels: dict[int, list[Tensor]] = {}
        self._sums: dict[int, list[Tensor]] = {}  # of each block, float64 [2, 3] on the CPU: values, squares
        self._all: dict[int, dict[int, tuple[int, Tensor]]] = {}  # level, number: images and sums, of all processes

    def _block(self, images: np.ndarray) -> None:
        resolution = images.shape[-1]
        if resolution < COARSEST or resolution & (resolution - 1):
            raise DataError(f"swd: images of {resolution} pixels; SWD needs a power of two of at least {COARSEST}")
        self._blocks.append(len(images))
        few = self.device.type == "cpu"
        most, pixels = (16, PIXELS_AT_ONCE) if few else (BLOCK, PIXELS_AT_ONCE_ELSEWHERE)
        count = max(1, min(most, pixels // resolution**2))
        parts = torch.from_numpy(rgb(images)).split(count)
        resolutions = [COARSEST << i for i in range((resolution // COARSEST).bit_length())]
        positions = {r: self._positions(r, len(self._blocks) - 1).split(count) for r in resolutions}
        with worker_threads() as pool:
            levels = list(
                pool.map(self._levels_of, parts, ({r: p[i] for r, p in positions.items()} for i in range(len(parts))))
            )
        for r in levels[0]:
            kept, sums = zip(*(level[r] for level in levels), strict=True)
            self._levels.setdefault(r, []).append(torch.cat(kept))
            self._sums.setdefault(r, []).append(torch.stack(sums).sum(0))

    @torch.no_grad()
    def _levels_of(self, images: Tensor, positions: dict[int, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
        """Per level, what is kept of some images, and the sums [2, 3] of their descriptors and of the squares.

        images: uint8 [n, 3, R, R]; positions: of their patches, [n, P, 2] per level. Of a level [n, 3, r, r] and its
        descriptors [n, P * 147], the smaller is kept.
        """
        found = {}
        for level in laplacian_pyramid(images.to(self.device).float()):
            r = level.shape[-1]
            patches = descriptors(level, positions[r])
            values = patches.view(len(patches), 3, -1)
            exact = values.cpu() if level.device.type == "mps" else values  # which knows no float64
            sums = torch.stack([v.sum((0, 2), dtype=torch.float64) for v in (exact, exact * exact)]).cpu()
            found[r] = level if level.numel() <= patches.numel() else patches.view(len(images), -1), sums
        return found

    def _statistics(self) -> Statistics:
        found: Statistics = {}
        distances: list[list[float]] = []
        sums = self._processes.gather({r: self._numbered(sums) for r, sums in self._sums.items()})
        self._all = self._processes.first(lambda: _merged(sums))
        first = self._processes.rank == 0
        for r, blocks in self._all.items():
            every, directions = np.arange(len(blocks)), random_directions(self.protocol, 3 * PATCH**2).to(self.device)
            counts = self._histograms(r, every, directions)
            if first:
                found[str(r)] = counts.astype(np.min_scalar_type(counts.max()))  # half the memory, or a quarter
            if self.against is not None:
                distances.append([])
                for part in (part for part in np.array_split(every, PARTS) if len(part)):
                    counts = self._histograms(r, part, directions[:PART_DIRECTIONS])
                    if first:
                        reals = self.against[str(r)][:PART_DIRECTIONS]
                        distances[-1].append(histogram_distance(counts, reals).mean())
            self._levels.pop(r, None)
        if self.against is not None and first:
            found["parts"] = np.array(distances).T
        return found

    def _numbered(self, sums: list[Tensor]) -> dict[int, tuple[int, Tensor]]:
        return {self.number(i): of_block for i, of_block in enumerate(zip(self._blocks, sums, strict=True))}

    def _histograms(self, r: int, numbers: np.ndarray, directions: Tensor) -> np.ndarray:
        """Histograms [D, BINS] of the descriptors of some blocks, normalised by mean and std of these blocks alone."""
        sizes = {number: self._all[r][number][0] * self.protocol.patches for number in numbers.tolist()}
        values = sum(sizes.values()) * PATCH**2
        mean, square = (torch.stack([self._all[r][number][1] for number in sizes]).sum(0) / values).unbind()
        std = (square - mean.square()).clamp(min=0).sqrt()
        centre, width = (x.float().to(self.device) for x in (mean, std))
        own = [i for i in range(len(self._blocks)) if self.number(i) in sizes]
        make = [partial(self._normalized, r, i, centre, width) for i in own]
        counts = projection_histograms(make, [sizes[self.number(i)] for i in own], directions)
        return self._processes.total(counts)

    @torch.no_grad()
    def _normalized(self, r: int, block: int, mean: Tensor, std: Tensor) -> Tensor:
        return normalize(self._patches(r, block), mean, std)

    def _positions(self, r: int, block: int) -> Tensor:
        generator = keyed_generator(self.protocol.seed, f"swd {self.role} {r}", self.number(block))
        return random_positions(self._blocks[block], self.protocol.patches, r, generator)

    def _patches(self, r: int, block: int) -> Tensor:
        kept = self._levels[r][block]
        return descriptors(kept, self._positions(r, block)) if kept.ndim == 4 else kept.view(-1, 3 * PATCH**2)


def _merged(parts: list[dict[int, dict[int, tuple[int, Tensor]]]]) -> dict[int, dict[int, tuple[int, Tensor]]]:
    """By level and number of the block, in the order of the set, what several processes have by level and number."""
    levels = sorted({r for part in parts for r in part}, reverse=True)
    return {r: dict(sorted(item for part in parts for item in part.get(r, {}).items())) for r in levels}


def swd_values(fakes: Statistics, reals: Statistics) -> dict[str, float]:
    """SWD x 1e3 per level and their plain average: {"128": ..., "16": ..., "average": ...}."""
    levels = {r: 1e3 * float(histogram_distance(fakes[r], reals[r]).mean()) for r in reals if r != "parts"}
    return levels | {"average": sum(levels.values()) / len(levels)}


def swd_spread(fakes: Statistics) -> dict[str, float]:
    """Standard errors of `swd_values`, from statistics collected against reals.

    An eighth of the fakes is further from the reals than all of them are, having fewer images; how much the eighths
    differ among each other tells how much another set of fakes would differ from this one.
    """
    parts = 1e3 * np.column_stack([fakes["parts"], fakes["parts"].mean(1)])  # [PARTS, levels + 1]
    names = [*(r for r in fakes if r != "parts"), "average"]
    errors = parts.std(0, ddof=1) / len(parts) ** 0.5 if len(parts) > 1 else np.full(len(names), np.nan)
    return dict(zip(names, errors.tolist(), strict=True))


def swd(reals: Images, fakes: Images, *, device: str | torch.device = "cpu", **protocol: Any) -> dict[str, float]:
    """SWD x 1e3 between two sets of images, per level and on average (paper section 5).

    reals, fakes: uint8 [N, C, R, R], as an array, a tensor or an iterable of batches; the first 16,384 of each are
    used. protocol: fields of `SwdProtocol` to change. Raises DataError for too few images, or sets of different size.
    """
    chosen = SwdProtocol(**protocol)
    collectors = [SwdCollector(chosen, role, device) for role in ("reals", "fakes")]
    real, fake = (collect(images, c) for images, c in zip((reals, fakes), collectors, strict=True))
    check_same_shape(collectors[0].shape, collectors[1].shape)
    return swd_values(fake, real)


def _down(x: Tensor) -> Tensor:
    """[..., H, W] -> [..., H/2, W/2]: 5-tap binomial filter along both axes, every second pixel kept."""
    for dim in (-2, -1):  # rows first, which lie together in memory
        n = x.shape[dim]
        padded = F.pad(x, (2, 2, 0, 0) if dim == -1 else (0, 0, 2, 2), mode="reflect")
        tap = [padded.narrow(dim, i, n - 1).unfold(dim, 1, 2).squeeze(-1) for i in range(5)]
        x = (tap[0] + tap[4]).add_(tap[1] + tap[3], alpha=4).add_(tap[2], alpha=6).mul_(1 / 16)
    return x


def _up(x: Tensor) -> Tensor:
    """[..., H, W] -> [..., 2H, 2W]: zeros between the pixels, then the filter of `_down` times 2 along each axis."""
    for dim in (-1, -2):
        n = x.shape[dim]
        # Mirrored borders of the image with zeros: before the first pixel comes the second, after the last itself.
        before = torch.cat([x.narrow(dim, 1, 1), x.narrow(dim, 0, n - 1)], dim)
        after = torch.cat([x.narrow(dim, 1, n - 1), x.narrow(dim, n - 1, 1)], dim)
        even = before.add_(x, alpha=6).add_(after).mul_(1 / 8)
        odd = after.add_(x).mul_(1 / 2)
        x = torch.stack([even, odd], -1).flatten(-2) if dim == -1 else torch.stack([even, odd], -2).flatten(-3, -2)
    return x
