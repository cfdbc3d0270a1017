"""Nearest training images of generated ones, by distance in feature space: does the generator copy? (paper appendix)"""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from progan.images import make_grid
from progan.support.errors import DataError

QUERIES_AT_ONCE, BASE_AT_ONCE = 1024, 8192  # rows of one block of float32 distances, 32 MiB
SPARE = 8  # candidates more than asked for, lest rounding in float32 drops a near one
REALS = 10_000  # whose distances to the training images are what generated ones are judged by
K_NEAREST = 3  # whose distance is the radius of a ball in precision and recall
NEAR = 0.01  # share of reals that lie as near as what we call near


def nearest(queries: np.ndarray, base: np.ndarray, k: int, exclude_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `base` closest to each query, nearest first: indices int64 [n, k], distances float32 [n, k].

    queries: [n, D]; base: [m, D]. Euclidean, exact in float64 for those found: a copy is at distance 0. Of rows at one
    distance, the first comes first. exclude_self: row i of the queries is row i of the base, and not its own neighbour.
    Memory: 150 MB beside the arguments and the result. Raises DataError unless the base has k rows to find.
    """
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise DataError(f"features are [N, D] of one network, not {list(queries.shape)} and {list(base.shape)}")
    found = len(base) - exclude_self
    if not 1 <= k <= found:
        raise DataError(f"{k} neighbours: there are {found} images to find them among; ask for 1 to {found}")
    candidates = _candidates(queries, base, min(k + SPARE, found), exclude_self)
    indices, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for i, chosen in enumerate(candidates):
        chosen = np.sort(chosen)
        exact = np.linalg.norm(base[chosen].astype(np.float64) - queries[i], axis=1)
        first = np.argsort(exact, kind="stable")[:k]
        indices[i], distances[i] = chosen[first], exact[first]
    return indices, distances


def memorisation(fakes: np.ndarray, train: np.ndarray, held_out: np.ndarray | None = None) -> dict[str, float]:
    """Whether generated images lie nearer to training images than unseen real images do; features [N, D] of each.

    - fakes: median distance of a generated image to its nearest training image.
    - reals: the same of real images that the generator never saw. Without `held_out`, training images stand in for
      them, each against all the others: they lie the same, unless the data set holds images twice.
    - ratio: fakes / reals. Around 1, generated images are as new as unseen real ones; far below 1, the generator
      repeats what it was shown. Above 1, they lie off the data: such images are poor, which hides copies, so this
      number acquits no generator of bad FID.
    - near: the distance that 1% of those reals stay within. 0 says that the data set holds images twice.
    - near_share: share of the generated images that stay within it too. Around 0.01 is innocent; 0.05 says that about
      4 in 100 are near-copies, which the median does not show. Look at those of smallest distance, in a
      `neighbour_sheet`.

    train: all images that the generator saw. Their mirror images need not be given: these networks hardly tell an image
    from its own. At most 10,000 reals are taken. Values of other networks or numbers of training images do not compare.
    Raises DataError when there are no images to measure.
    """
    if len(fakes) < 1 or len(train) < 2 or (held_out is not None and len(held_out) < 1):
        raise DataError(
            "memorisation: give at least 1 generated, 2 training and, where any are given, 1 held-out image"
        )
    if held_out is None:
        # The nearest training image of a training image is itself, at 0; the second is the nearest other one.
        reals = nearest(_spread(train), train, 2)[1][:, 1]
    else:
        reals = nearest(_spread(held_out), train, 1)[1][:, 0]
    own = nearest(fakes, train, 1)[1][:, 0]
    near = float(np.quantile(reals, NEAR))
    middle, real_middle = float(np.median(own)), float(np.median(reals))
    return {
        "fakes": middle,
        "reals": real_middle,
        "ratio": middle / real_middle if real_middle else float("nan"),
        "near": near,
        "near_share": float((own <= near).mean()),
    }


def covered(queries: np.ndarray, base: np.ndarray, k: int = K_NEAREST) -> np.ndarray:
    """Which queries lie on the manifold of the base, as far as its samples tell: bool [n] (Kynkäänniemi et al., 2019).

    The manifold is the union of a ball around each row of the base that reaches to its k-th nearest other row. Of fakes
    on the reals' manifold the share is precision, of reals on the fakes' it is recall. queries: [n, D]; base: [m, D],
    m over k. Memory and errors as for `nearest`.
    """
    squared_radii = torch.from_numpy(nearest(base, base, k, exclude_self=True)[1][:, k - 1]).square()
    inside = torch.zeros(len(queries), dtype=torch.bool)
    for rows, columns, distances, norms in _squared_distances(queries, base):
        inside[rows] |= (distances + norms[:, None] <= squared_radii[columns]).any(1)
    return inside.numpy()


def neighbour_sheet(fakes: np.ndarray, neighbours: np.ndarray, scale: int = 1) -> Image.Image:
    """One row per generated image: the image, a gap, then its nearest training images, nearest first.

    fakes: uint8 [n, C, R, R]; neighbours: uint8 [n, k, C, R, R]; scale: width of a pixel.
    """
    n, k, _, size, _ = neighbours.shape
    left = make_grid(fakes, 1, n, scale)
    right = make_grid(neighbours.reshape(n * k, *neighbours.shape[2:]), k, n, scale)
    gap = max(1, size // 4) * scale
    sheet = Image.new(left.mode, (left.width + gap + right.width, left.height), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + gap, 0))
    return sheet


def _candidates(queries: np.ndarray, base: np.ndarray, k: int, exclude_self: bool) -> np.ndarray:
    """Which k rows of `base` are closest to each query, up to rounding in float32, in no order: int64 [n, k]."""
    best = torch.full((len(queries), k), torch.inf)
    index = torch.zeros((len(queries), k), dtype=torch.int64)
    for rows, columns, d, _ in _squared_distances(queries, base):
        if exclude_self:
            d.diagonal(rows.start - columns.start).fill_(torch.inf)
        values, where = d.topk(min(k, d.shape[1]), largest=False)
        values, index_of = torch.cat([best[rows], values], 1), torch.cat([index[rows], where + columns.start], 1)
        best[rows], where = values.topk(k, largest=False)
        index[rows] = index_of.gather(1, where)
    return index.numpy()


def _squared_distances(queries: np.ndarray, base: np.ndarray) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """A block at a time: rows of the queries, rows of the base, their |x - y|^2 - |x|^2, and |x|^2."""
    # Around the base's mean the products are small, and so are their rounding errors.
    centre = base.mean(0, dtype=np.float64).astype(np.float32)
    for start in range(0, len(base), BASE_AT_ONCE):
        columns = slice(start, min(start + BASE_AT_ONCE, len(base)))
        block = torch.from_numpy(np.subtract(base[columns], centre, dtype=np.float32))
        squares = block.square().sum(1)
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            rows = slice(first, min(first + QUERIES_AT_ONCE, len(queries)))
            x = torch.from_numpy(np.subtract(queries[rows], centre, dtype=np.float32))
            yield rows, columns, torch.addmm(squares, x, block.T, alpha=-2), x.square().sum(1)


def _spread(features: np.ndarray) -> np.ndarray:
    """At most `REALS` rows, evenly over all: a data set may be in the order of its classes."""
    count = min(REALS, len(features))
    return features[np.arange(count) * len(features) // count]
