"""A classifier of handwritten digits, trained on the channels of an MNIST-RGB data set."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.data.store.pyramid import ImagePyramid
from progan.images import to_float
from progan.support.errors import DataError
from progan.support.plain_files import LIST_BYTES, read_plain
from progan.support.rng import data_order, seeded
from progan.weights import read_weights, write_weights

SIDE = 32  # pixels
KIND = "digit classifier"
HELD_OUT = 26  # of the 256 values of a digest's first byte: about a tenth of the digits
READ_AT_ONCE = 500  # images
MODES = 1000
MODE_NAMES = [f"{mode:03}" for mode in range(MODES)]  # labels of MNIST-RGB: three digits, red first


@dataclass(frozen=True)
class Recipe:
    """How the classifier is trained; all of it decides the weights."""

    images: int = 20_000
    """The first so many images of the data set, of three digits each."""
    steps: int = 800
    """Steps of Adam."""
    batch: int = 128
    """Digits per step."""
    lr: float = 2e-3
    """Adam's learning rate at the first step; it falls to 0 in a straight line."""
    seed: int = 0
    """Decides the initial weights and the order of the digits."""


class DigitClassifier(nn.Module):
    """Three convolutions with batch norm, and a dense layer: uint8 [N, 1, 32, 32] -> logits [N, 10], float32."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(1, 16, 5, stride=2),  # [N, 16, 16, 16]
            *_convolution(16, 32, 3),
            nn.MaxPool2d(2),  # [N, 32, 8, 8]
            *_convolution(32, 64, 3),
            nn.MaxPool2d(2),  # [N, 64, 4, 4]
            nn.Flatten(),
            nn.Linear(64 * 16, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(to_float(images).contiguous(memory_format=torch.channels_last))
        return logits


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and how good it is. accuracy: share of the held-out digits it names rightly, 0 to 1."""

    network: DigitClassifier
    accuracy: float
    held_out: int
    """Distinct digits that were kept from training."""
    hash: str
    """SHA-256 of its file."""

    @torch.no_grad()
    def digits(self, images: np.ndarray) -> np.ndarray:
        """The digit in every channel: uint8 [N, C, 32, 32] -> int64 [N, C], 0 to 9."""
        channels = torch.from_numpy(images).flatten(0, 1)[:, None]  # [NC, 1, 32, 32]
        found = torch.cat([self.network(part).argmax(1) for part in channels.split(512)])
        return found.view(images.shape[:2]).numpy()


def check_mnist_rgb(data: ImagePyramid) -> None:
    """Raise DataError unless this is an MNIST-RGB data set: 32x32, three colours, the labels 000 to 999."""
    if (data.resolution, data.channels, data.label_names) != (SIDE, 3, MODE_NAMES):
        raise DataError(
            f"{data.path}: holds {data.resolution}x{data.resolution} images with {data.channels}"
            f" channel{'s' * (data.channels != 1)} and {data.label_dim:,} labels, not 32x32 images with 3 channels and"
            " the labels 000 to 999; make such a data set with `progan data create mnist-rgb`"
        )


def classifier_for(data: ImagePyramid, path: Path, recipe: Recipe | None = None) -> TrainedClassifier:
    """The classifier kept at `path` if it is of this data set and recipe, else a new one, which is kept there.

    data: an MNIST-RGB data set. Raises DataError when it is another, or too small to learn from and to be tried on.
    """
    check_mnist_rgb(data)
    recipe = recipe or Recipe()
    about: dict[str, Any] = {"kind": KIND, "data": data.hash, "recipe": asdict(recipe)}
    if (kept := _read(path, about)) is not None:
        return kept
    network, accuracy, held_out = _train(data, recipe)
    about |= {"accuracy": accuracy, "held_out": held_out}
    write_weights(path, network, about)
    return read_classifier(path)


def read_classifier(path: Path) -> TrainedClassifier:
    """A classifier that classifier_for kept; raises DataError when the file is missing, damaged or something else."""
    if (kept := _read(path, {"kind": KIND})) is None:
        raise DataError(f"{path}: not a whole digit classifier; run the command again, which trains it anew")
    return kept


def distinct_digits(data: ImagePyramid, images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The digits of the first `images` images, each once, however many images it is stacked into.

    Returns the pixels uint8 [D, 32, 32], the labels int64 [D], and bool [D]: held out from training. A digit's own
    pixels decide whether it is held out, so that no copy of it is ever trained on.
    """
    kept: dict[bytes, tuple[np.ndarray, int]] = {}
    for pixels, label in _channels(data, min(images, len(data))):
        kept.setdefault(hashlib.sha256(pixels.tobytes()).digest(), (pixels, label))
    held_out = np.array([digest[0] < HELD_OUT for digest in kept], dtype=bool)
    found, labels = zip(*kept.values(), strict=True)
    return np.stack(found), np.array(labels, dtype=np.int64), held_out


def _channels(data: ImagePyramid, images: int) -> Iterator[tuple[np.ndarray, int]]:
    """Every channel of the first `images` images with its digit: uint8 [32, 32], 0 to 9."""
    for start in range(0, images, READ_AT_ONCE):
        indices = np.arange(start, min(start + READ_AT_ONCE, images))
        modes = data.read_labels(indices).argmax(1)  # [n]
        digits = np.stack([modes // 100, modes // 10 % 10, modes % 10], axis=1)  # [n, 3]
        pixels = data.read(indices, SIDE)  # [n, 3, 32, 32]
        yield from zip(pixels.reshape(-1, SIDE, SIDE), digits.reshape(-1).tolist(), strict=True)


def _train(data: ImagePyramid, recipe: Recipe) -> tuple[DigitClassifier, float, int]:
    """The network, its accuracy on the held-out digits, and their number."""
    pixels, labels, held_out = distinct_digits(data, recipe.images)
    seen = np.flatnonzero(~held_out)
    if len(np.unique(labels[seen])) < 10 or not held_out.any():
        raise DataError(
            f"{data.path}: its {len(data):,} images show too few different digits to learn all ten and to be tried on"
            " others; create a larger data set, --count 20000 or more"
        )
    with seeded(recipe.seed, "digit classifier"):
        network = DigitClassifier()
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (1 - step / recipe.steps)
        chosen = seen[data_order(recipe.seed, step * recipe.batch, recipe.batch, len(seen))]
        logits = network(torch.from_numpy(pixels[chosen][:, None]))
        loss = F.cross_entropy(logits, torch.from_numpy(labels[chosen]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    network.eval().requires_grad_(False)
    named = TrainedClassifier(network, 0.0, 0, "").digits(pixels[held_out][:, None])[:, 0]
    return network, float((named == labels[held_out]).mean()), int(held_out.sum())


def _read(path: Path, wanted: dict[str, Any]) -> TrainedClassifier | None:
    """The classifier at `path` if its metadata says all that is wanted, else None."""
    try:
        content = read_plain(path, LIST_BYTES)
        about, tensors = read_weights(path)
        if any(about.get(name) != value for name, value in wanted.items()):
            return None
        with torch.device("meta"):  # no weights are drawn: they are read
            network = DigitClassifier()
        network.load_state_dict(tensors, assign=True)
        accuracy, held_out = float(about["accuracy"]), int(about["held_out"])
    except Exception:  # a damaged file raises almost anything; it is made again
        return None
    return TrainedClassifier(
        network.eval().requires_grad_(False), accuracy, held_out, hashlib.sha256(content).hexdigest()
    )
