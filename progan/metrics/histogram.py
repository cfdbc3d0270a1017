"""One-dimensional Wasserstein distances of millions of projections, by counting in place of sorting (paper section 5).

The distance is the area between two cumulative distributions. Counts in fine bins give it without a sort, in one pass
over a stream, and are small enough to keep. On average over where the bins lie it is exact; the random rest shrinks
with the number of directions, and the tests hold it below 1e-5 of the distance.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from progan.metrics.threads import worker_threads
from progan.support.arithmetic import number_format

# Bins are equally wide in x / (SCALE + |x|): 8e-6 at x = 0, 7e-5 at 1, where normalised projections have unit variance.
BINS = 2**17
SCALE = 0.5
HALF = BINS / 2 - 2  # float32 rounding cannot push a key outside
COLUMNS = 2**18  # projections on each direction that are counted at a time
ROWS_THERE = 32  # directions that a GPU counts at a time: a few hundred MB
AT_ONCE = 2**11  # vectors that are projected at a time: few enough for the processor's cache


def projection_histograms(
    blocks: Sequence[Callable[[], Tensor]], sizes: Sequence[int], directions: Tensor
) -> np.ndarray:
    """How many projections on each direction fall into each bin: uint32 [D, BINS].

    blocks: functions that make the parts of the set, [size, dim] each; sizes: of each, all the same but the last, which
    may be smaller; directions: [D, dim]. Both are on one device, where the projections are computed and counted too; on
    a CPU by all its threads.
    """
    counts = np.zeros((len(directions), BINS), np.uint32)
    if not sizes:
        return counts
    at_once = max(1, COLUMNS // sizes[0])  # blocks
    if directions.device.type != "cpu":
        return _counted_there(blocks, at_once, directions)
    keys = np.empty((len(directions), sum(sizes[:at_once])), np.int32)
    rows = np.array_split(np.arange(len(directions)), 4 * torch.get_num_threads())
    with worker_threads() as pool:
        for first in range(0, len(blocks), at_once):
            ends = list(accumulate(sizes[first : first + at_once], initial=0))
            columns = [keys[:, start:end] for start, end in pairwise(ends)]
            list(pool.map(partial(_bins, directions), blocks[first : first + at_once], columns))
            list(pool.map(partial(_count, keys[:, : ends[-1]], counts), rows))
    return counts


@torch.no_grad()
def _counted_there(blocks: Sequence[Callable[[], Tensor]], at_once: int, directions: Tensor) -> np.ndarray:
    """`projection_histograms` where the directions are, on a GPU; some directions at a time, for their memory."""
    counts = directions.new_zeros((len(directions), BINS), dtype=torch.int32)
    rows = torch.arange(ROWS_THERE)[:, None].to(directions.device) * BINS
    for first in range(0, len(blocks), at_once):
        vectors = torch.cat([make() for make in blocks[first : first + at_once]])
        for some, sums in zip(directions.split(ROWS_THERE), counts.split(ROWS_THERE), strict=True):
            with number_format("fp32"):
                x = torch.mm(some, vectors.T)  # [d, n]
            keys = (x / (x.abs() + SCALE)).mul_(HALF).add_(BINS / 2).long().add_(rows[: len(some)])
            sums += torch.bincount(keys.flatten(), minlength=sums.numel()).view(sums.shape)
    return counts.cpu().numpy().view(np.uint32)


def histogram_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Wasserstein-1 distance of every pair of rows of two histograms [D, BINS]: float64 [D]."""
    u = (np.arange(BINS) + 0.5 - BINS / 2) / HALF
    width = np.diff(SCALE * u / (1 - np.abs(u).clip(max=1 - 1e-9)))  # from the middle of a bin to that of the next

    def of_row(row_a: np.ndarray, row_b: np.ndarray) -> float:
        # Cumulative counts are exact; the last is the number of vectors.
        below_a, below_b = row_a.cumsum(dtype=np.int64), row_b.cumsum(dtype=np.int64)
        gap = below_a[:-1] / below_a[-1] - below_b[:-1] / below_b[-1]
        return float(np.abs(gap) @ width)

    with worker_threads() as pool:
        return np.array(list(pool.map(of_row, a, b)))


def _bins(directions: Tensor, block: Callable[[], Tensor], keys: np.ndarray) -> None:
    """The bin of every projection of one block: keys int32 [D, size]."""
    vectors = block()
    for start in range(0, len(vectors), AT_ONCE):
        x = torch.mm(directions, vectors[start : start + AT_ONCE].T).cpu().numpy()  # [D, n]
        y = np.abs(x)
        y += np.float32(SCALE)
        np.divide(x, y, out=y)
        y *= np.float32(HALF)
        y += np.float32(BINS / 2)
        keys[:, start : start + AT_ONCE] = y


def _count(keys: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> None:
    """Add the keys of some rows to their counts."""
    for row in rows:
        counts[row] += torch.bincount(torch.from_numpy(keys[row]), minlength=BINS).numpy().astype(np.uint32)
