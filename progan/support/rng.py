"""Named randomness: every random number is a pure function of (seed, purpose, position)."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def keyed_generator(seed: int, purpose: str, position: int = 0) -> torch.Generator:
    """A CPU generator keyed by its arguments, the same on every machine and device."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{position}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Key PyTorch's global generator for a while, for code that offers no generator of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_generator(seed, purpose).initial_seed())
        yield


def latents(seed: int, purpose: str, position: int, count: int, dim: int) -> Tensor:
    """`count` latents from N(0, 1): [count, dim], float32, on the CPU."""
    return torch.randn(count, dim, generator=keyed_generator(seed, purpose, position))


def data_order(seed: int, nimg: int, count: int, size: int) -> np.ndarray:
    """Which images of a data set of `size` are numbers nimg .. nimg + count of the training stream: int64 [count].

    The stream is one keyed permutation of the data set after another, so an epoch shows every image exactly once.
    """
    positions = np.arange(nimg, nimg + count)
    return np.array([_permutation(seed, p // size, size)[p % size] for p in positions.tolist()], dtype=np.int64)


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return torch.randperm(size, generator=keyed_generator(seed, "data order", epoch)).numpy()
