"""The nearest training images of generated ones, from streams to the picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import progan.evaluation.neighbours
from progan.evaluation.meter import Reals, Result
from progan.evaluation.neighbours import COLUMNS, ROWS, measure_neighbours
from progan.metrics.features import FeatureProtocol
from progan.metrics.protocol import Collector, Statistics


class Pixels(Collector):
    """Pixels in place of a network's features."""

    def __init__(self, protocol: FeatureProtocol, device: torch.device) -> None:
        super().__init__(protocol.images, 8)
        self.rows: list[np.ndarray] = []

    def _block(self, images: np.ndarray) -> None:
        self.rows.append(images.reshape(len(images), -1).astype(np.float32))

    def _statistics(self) -> Statistics:
        return {"features": np.concatenate(self.rows)}


@pytest.fixture
def measure(make_data: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """measure(fakes, held_out=None) against 40 training images; the picture is in neighbours.png."""
    monkeypatch.setattr(progan.evaluation.neighbours, "FeatureCollector", Pixels)
    train = Reals(make_data(count=40), 16, mirrored=True)

    def run(fakes: np.ndarray, held_out: Any = None) -> Result:
        batches = [fakes[i : i + 3] for i in range(0, len(fakes), 3)]
        where = tmp_path / "neighbours.png"
        return measure_neighbours(batches, train, held_out, where, images=12, device=torch.device("cpu"), quiet=True)

    run.train = train  # type: ignore[attr-defined]
    return run


def test_copies_of_training_images_are_found_out(measure: Any, make_data: Any, tmp_path: Path) -> None:
    copies = measure.train.data.read(np.arange(20, 34), 16)
    for held_out in (None, make_data("other", count=30, seed=1)):
        found = measure(copies, held_out)
        assert found.values["distance"] == found.values["ratio"] == 0
        assert found.values["near share"] == 1
        assert found.floor["distance"] > 0
        assert found.images == {"fakes": 12, "reals": 40, "floor": 40 if held_out is None else 30}
    sheet = np.asarray(Image.open(tmp_path / "neighbours.png"))
    size = 16 * 4  # 4 screen pixels a pixel
    assert sheet.shape == (2 * ROWS * size, (COLUMNS + 1) * size + size // 4, 3)
    for row in range(ROWS):  # the nearest image is the image itself
        line = sheet[row * size : (row + 1) * size]
        np.testing.assert_array_equal(line[:, :size], line[:, size + size // 4 : 2 * size + size // 4])
        np.testing.assert_array_equal(line[::4, :size:4].transpose(2, 0, 1), copies[row])


def test_new_images_of_the_same_kind_are_innocent(measure: Any, make_data: Any) -> None:
    found = measure(make_data("new", count=40, seed=2).read(np.arange(12), 16))
    assert 0.5 < found.values["ratio"] < 2
    assert found.values["near share"] < 0.3
