"""The images of a generator that are measured."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch

from progan.data.store.pyramid import ImagePyramid
from progan.networks import Generator
from progan.sampling.images import sample_batches
from progan.support.errors import DataError
from progan.support.rng import keyed_generator, latents

LABELS_AT_ONCE = 1024  # one-hot: of 10,000 classes 40 MB


def fakes_of(
    g: Generator,
    labels_of: ImagePyramid | None,
    count: int,
    *,
    seed: int = 0,
    resolution: int | None = None,
    alpha: float = 1.0,
    own: Sequence[range] | None = None,
) -> Iterator[np.ndarray]:
    """`count` images of a generator at full size: uint8 [n, C, R, R], a batch at a time, made where the generator is.

    They are made in float32, as `progan generate` makes them (`sample_batches`), whatever the run was trained in.

    labels_of: the data set whose labels a generator with labels is given, drawn at random, as training does.
    resolution, alpha: as far as the network has grown; its pixels are repeated up to the full resolution, so that all
    snapshots of a run are measured on the same levels. own: which of 0 .. count to make, by default all.
    """
    z = latents(seed, "measured fakes", 0, count, g.config.z_dim)
    chosen = None
    if g.config.label_dim:
        if labels_of is None or labels_of.label_dim != g.config.label_dim:
            raise DataError(f"the generator has {g.config.label_dim} labels; give a data set with as many")
        chosen = torch.randint(len(labels_of), (count,), generator=keyed_generator(seed, "measured labels")).numpy()
    for numbers in chain.from_iterable(_cut(wanted) for wanted in ([range(count)] if own is None else own)):
        some = slice(numbers.start, numbers.stop)
        labels = None if labels_of is None or chosen is None else torch.from_numpy(labels_of.read_labels(chosen[some]))
        yield from sample_batches(g, z[some], labels, resolution=resolution, alpha=alpha, full_size=True)


def _cut(numbers: range) -> Iterator[range]:
    return (numbers[start : start + LABELS_AT_ONCE] for start in range(0, len(numbers), LABELS_AT_ONCE))
