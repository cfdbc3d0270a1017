"""Streams of reals and fakes, and what the meter makes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import progan.evaluation.fakes
from progan.config import GeneratorConfig
from progan.data.store.pyramid import ImagePyramid
from progan.evaluation.fakes import fakes_of
from progan.evaluation.meter import Meter, Reals, append
from progan.metrics.suite import choose
from progan.networks import Generator
from progan.support.errors import DataError

MakeData = Any
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("few_directions")


@pytest.fixture
def faces(make_data: MakeData) -> ImagePyramid:
    return make_data(count=60, resolution=32)


def whole(stream: Any) -> np.ndarray:
    return np.concatenate(list(stream))


def names_of(images: np.ndarray) -> set[bytes]:
    """Each image by its content, the same for its mirror image."""
    return {min(image.tobytes(), image[..., ::-1].tobytes()) for image in images}


def test_reals_come_in_random_order_each_at_most_once(faces: ImagePyramid) -> None:
    reals = Reals(faces, 32, mirrored=False)
    first, rest = whole(reals.stream(0, 20)), whole(reals.stream(20, 40))
    assert len(names_of(first)) == 20
    assert names_of(first).isdisjoint(names_of(rest))
    assert names_of(np.concatenate([first, rest])) == names_of(faces.read(np.arange(60), 32))
    assert not np.array_equal(first, faces.read(np.arange(20), 32))
    assert not np.array_equal(first, whole(Reals(faces, 32, mirrored=False, seed=1).stream(0, 20)))


def test_half_of_the_reals_are_mirrored_if_training_did_so(faces: ImagePyramid) -> None:
    plain, mirrored = (whole(Reals(faces, 32, m).stream(0, 60)) for m in (False, True))
    same = sum(np.array_equal(a, b) for a, b in zip(plain, mirrored, strict=True))
    flipped = sum(np.array_equal(a[..., ::-1], b) for a, b in zip(plain, mirrored, strict=True))
    assert same + flipped == 60
    assert 15 < flipped < 45
    assert np.array_equal(whole(Reals(faces, 32, True).stream(30, 5)), mirrored[30:35])  # whatever is read with it


def test_the_key_of_reals_changes_with_whatever_changes_them(faces: ImagePyramid, make_data: MakeData) -> None:
    keys = [
        Reals(faces, 32, False).key(),
        Reals(faces, 16, False).key(),
        Reals(faces, 32, True).key(),
        Reals(faces, 32, False, seed=1).key(),
        Reals(make_data("other", count=60, resolution=32, seed=1), 32, False).key(),
    ]
    path = faces.path / "images-32x32.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)  # in place: size and manifest stay
    keys.append(Reals(ImagePyramid.open(faces.path), 32, False).key())
    assert len({json.dumps(key) for key in keys}) == len(keys)


def test_fakes_are_shown_at_full_size_and_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(resolution=32, fmap_base=32, fmap_max=16))
    images = whole(fakes_of(g, None, 20, resolution=8, alpha=0.5))
    assert images.shape == (20, 3, 32, 32)
    assert np.array_equal(images[..., ::4, ::4].repeat(4, 2).repeat(4, 3), images)
    assert np.array_equal(images, whole(fakes_of(g, None, 20, resolution=8, alpha=0.5)))
    assert not np.array_equal(images, whole(fakes_of(g, None, 20, resolution=8, alpha=0.5, seed=1)))


def test_labels_are_drawn_from_the_data(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(count=9, resolution=8, labels=3)
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(resolution=8, fmap_base=32, fmap_max=16, label_dim=3))
    seen: list[torch.Tensor] = []
    forward = g.forward
    monkeypatch.setattr(g, "forward", lambda z, y, **how: (seen.append(y), forward(z, y, **how))[1])
    whole(fakes_of(g, data, 300))
    labels = torch.cat(seen)
    assert (labels.sum(1) == 1).all()
    assert (labels.sum(0) > 70).all()
    with pytest.raises(DataError, match="3 labels"):
        next(fakes_of(g, make_data("plain", count=9, resolution=8), 4))


def test_labels_are_read_a_part_at_a_time(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(count=9, resolution=8, labels=3)
    g = Generator(GeneratorConfig(resolution=8, fmap_base=32, fmap_max=16, label_dim=3))
    together = whole(fakes_of(g, data, 200))
    monkeypatch.setattr(progan.evaluation.fakes, "LABELS_AT_ONCE", 64)
    asked: list[int] = []
    read = data.read_labels
    monkeypatch.setattr(data, "read_labels", lambda chosen: (asked.append(len(chosen)), read(chosen))[1])
    assert np.array_equal(whole(fakes_of(g, data, 200)), together)
    assert asked == [64, 64, 64, 8]


def test_a_meter_gives_every_metric_with_spread_and_floor(faces: ImagePyramid, tmp_path: Path) -> None:
    metrics = choose("swd,ms_ssim", images=24)
    meter = Meter(metrics, Reals(faces, 32, False), CPU, quiet=True)
    good = faces.read(np.arange(30, 60), 32)
    bad = np.random.default_rng(0).integers(0, 256, good.shape, dtype=np.uint8)
    near, far = meter.measure([good]), meter.measure(bad[i : i + 7] for i in range(0, 30, 7))
    for results in (near, far):
        assert [result.metric.name for result in results] == ["swd", "ms_ssim"]
        swd, similarity = results
        assert list(swd.values) == list(swd.spread) == list(swd.floor) == ["32", "16", "average"]
        assert swd.images == {"fakes": 24, "reals": 24, "floor": 24}
        assert similarity.images == {"fakes": 24, "reals": 24}
        assert all(np.isfinite(value) for result in results for value in (*result.spread.values(), result.seconds))
    assert near[0].floor == far[0].floor
    assert far[0].values["average"] > 1.4 * near[0].values["average"]
    assert near[0].values["average"] < 1.4 * near[0].floor["average"]
    # The same again, from the cache and with the images in other batches.
    again = Meter(metrics, Reals(faces, 32, False), CPU, quiet=True).measure([bad])
    assert [result.values for result in again] == [result.values for result in far]
    assert [result.floor for result in again] == [result.floor for result in far]


def test_statistics_of_reals_are_collected_once(faces: ImagePyramid, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    stream = Reals.stream
    monkeypatch.setattr(Reals, "stream", lambda self, *where: (read.append(where[:2]), stream(self, *where))[1])
    fakes = faces.read(np.arange(20), 16)
    both = [(0, 20), (20, 20)]
    for seed, order, expected in ((5, 5, both), (5, 5, []), (6, 6, both), (5, 6, both), (6, 5, both), (6, 5, [])):
        meter = Meter(choose("swd", images=20, seed=seed), Reals(faces, 16, False, order), CPU, quiet=True)
        meter.measure([fakes])
        meter.measure([fakes])
        assert read == expected
        read.clear()


def test_a_data_set_too_small_for_the_floor_is_refused_at_once(faces: ImagePyramid) -> None:
    reals = Reals(faces, 32, False)
    assert Meter(choose("swd", images=40), reals, CPU).metrics[0].size == 40
    for images, message in (
        (41, r"holds 60 images, swd needs 61 .*--images 30"),
        (None, r"needs 24,576 .*--images 30"),
    ):
        with pytest.raises(DataError, match=message):
            Meter(choose("swd", images=images), reals, CPU)
    with pytest.raises(DataError, match=r"ms_ssim needs 20,000 .*--images 60"):
        Meter(choose("ms_ssim"), reals, CPU)


def test_lines_are_added_and_a_torn_one_stays_alone(faces: ImagePyramid, tmp_path: Path) -> None:
    meter = Meter(choose("ms_ssim", images=20), Reals(faces, 32, False), CPU, quiet=True)
    results = meter.measure([faces.read(np.arange(20), 32)])
    record = tmp_path / "metrics.jsonl"
    append(record, results, "one", 5, meter)
    with record.open("a") as file:
        file.write('{"source": "to')
    append(record, results, "two", None, meter)
    lines = record.read_text().splitlines()
    assert len(lines) == 3
    first, last = json.loads(lines[0]), json.loads(lines[2])
    assert (first["source"], first["nimg"], last["source"], last["nimg"]) == ("one", 5, "two", None)
    expected = {"metric", "values", "spread", "images", "protocol", "data", "device", "seconds", "reals"}
    assert expected <= set(first)
    assert first["data"] == faces.hash
    assert first["protocol"] == meter.metrics[0].protocol.hash
