"""Projection: an image that the generator made is found again, at every stage and for every kind of network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from progan.config import GeneratorConfig
from progan.data.store.pyramid import ImagePyramid
from progan.networks import Generator
from progan.sampling.images import load_generator, one_hot, sample, seed_latents
from progan.sampling.project import distance, minimise, mismatch, plan, project
from progan.training import fit_to_data, train
from tests.conftest import MakeConfig

QUICK: dict[str, Any] = {"starts": 64, "steps": 100}


def generator(**fields: Any) -> Generator:
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(**{"resolution": 16, "fmap_base": 64, "fmap_max": 16, **fields}))
    return g.eval().requires_grad_(False)


def own_images(g: Generator, count: int, **stage: Any) -> np.ndarray:
    """Images of the generator, of each class in turn."""
    classes = [i % max(1, g.config.label_dim) for i in range(count)]
    z = seed_latents(range(100, 100 + count), g.config.z_dim)
    return sample(g, z, one_hot(classes, g.config.label_dim), **stage)


@pytest.mark.slow
def test_what_a_trained_generator_made_is_found_again(
    data: ImagePyramid, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(g={"fmap_base": 128, "fmap_max": 32}, schedule={"total_nimg": 480, "stable_nimg": 80})
    train(fit_to_data(config, data), data, tmp_path / "run")
    g, stage = load_generator(tmp_path / "run")
    found = project(g, own_images(g, 10, **stage), **stage)
    assert (found.distances < 2).sum() >= 9
    assert (found.start_distances > 2).all()


@pytest.mark.parametrize(
    ("fields", "stage"),
    [
        ({}, {"resolution": 4}),
        ({}, {"resolution": 8, "alpha": 0.5}),
        ({"channels": 1}, {}),
        ({"label_dim": 3}, {}),
        ({"output": "tanh", "equalized": False}, {}),
        ({"norm": "batch", "activation": "relu"}, {}),
        ({"normalize_latent": False, "latent_dim": 5}, {"alpha": 0.25}),
    ],
)
def test_every_network_at_every_stage(fields: dict[str, Any], stage: dict[str, Any]) -> None:
    g = generator(**fields)
    pictures = own_images(g, 4, **stage)
    found = project(g, pictures, **stage, **QUICK)
    assert (found.distances < 2).sum() >= 2  # which of them end in a hollow of their own, rounding decides
    assert (found.distances < found.start_distances).all()
    labels = one_hot(found.classes.tolist(), g.config.label_dim)
    assert np.array_equal(found.images, sample(g, found.z, labels, **stage))
    assert np.array_equal(found.distances, distance(found.images, pictures))


def test_the_class_is_found_or_given() -> None:
    g = generator(label_dim=3)
    g.blocks["4"].dense.weight.data[:, -3:] *= 6  # classes that differ
    pictures = own_images(g, 6)
    assert project(g, pictures, starts=1, steps=20).classes.tolist() == [0, 1, 2, 0, 1, 2]  # none goes untried
    assert project(g, pictures, label=2, starts=8, steps=2).classes.tolist() == [2] * 6


def test_a_picture_is_found_alone_as_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    g, quick = generator(resolution=8), {"starts": 32, "steps": 40}
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), np.uint8)
    pictures = np.concatenate([own_images(g, 2), noise])
    together = project(g, pictures, **quick)
    assert torch.equal(together.z, project(g, pictures, **quick).z)
    monkeypatch.setattr("progan.sampling.project.VALUES_AT_ONCE", 1)  # one latent in a batch
    assert project(g, pictures, **quick).distances == pytest.approx(together.distances, abs=0.3)
    alone = project(g, noise, **quick)
    assert alone.distances == pytest.approx(together.distances[2:], abs=0.3)
    assert not torch.equal(project(g, noise, **quick, seed=1).z, alone.z)


def test_progress_is_the_share_of_the_work() -> None:
    shares: list[float] = []
    project(generator(), own_images(generator(), 2), starts=20, steps=9, progress=shares.append)
    assert len(shares) > 9
    assert sum(shares) == pytest.approx(1)


def test_distances_are_root_mean_squares_over_pixels_and_channels() -> None:
    a, b = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 4, 4), np.uint8)
    wanted = [
        (sum((float(x) - float(y)) ** 2 for x, y in zip(p.flat, q.flat, strict=True)) / 48) ** 0.5
        for p, q in zip(a, b, strict=True)
    ]
    assert distance(a, b) == pytest.approx(wanted)


def test_beyond_white_is_white() -> None:
    images = torch.tensor([-3.0, 1.5, 1.5, 0.5]).view(1, 1, 2, 2)
    targets = torch.tensor([-1.0, 1.0, 0.5, -1.0]).view(1, 1, 2, 2)
    assert mismatch(images, targets, 2).tolist() == [(1.0**2 + 1.5**2) / 4]


def test_a_coarse_stage_sums_over_its_pyramid() -> None:
    a, b = torch.rand(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = [0.0] * 3
    for side in (4, 8):  # means of the boxes of 16 / side pixels
        boxes = (a - b).double().view(3, side, 16 // side, side, 16 // side).mean((2, 4))
        wanted = [sum_ + level for sum_, level in zip(wanted, boxes.square().mean((1, 2)).tolist(), strict=True)]
    assert mismatch(a, b, 8).tolist() == pytest.approx(wanted)
    assert mismatch(a, b, 16).tolist() == pytest.approx((a - b).square().mean((1, 2, 3)).tolist())


@pytest.mark.parametrize(
    ("resolution", "levels"), [(4, [4] * 4), (8, [4, *[8] * 4]), (64, [4, 8, 16, 32, 64, 64, 64, 64])]
)
def test_the_plan_goes_from_coarse_to_fine_and_ends_with_one(resolution: int, levels: list[int]) -> None:
    stages = plan(resolution, 80, 8)
    assert [stage.resolution for stage in stages] == levels
    assert [stage.kept for stage in stages[-4:]] == [8, 4, 2, 1]
    assert sum(stage.steps for stage in stages[-4:]) == 80
    assert sum(stage.steps for stage in stages[:-4]) == 20 * (resolution > 4)


class Slope:
    """A loss of each row with its gradient, and for how many rows it was asked each time."""

    def __init__(self, loss: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.loss = loss
        self.calls: list[int] = []

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls.append(len(x))
        x = x.clone().requires_grad_(True)
        losses = self.loss(x)
        return losses.detach(), torch.autograd.grad(losses.sum(), x)[0]


def test_the_descent_reaches_the_bottom_of_a_narrow_valley_from_every_row() -> None:
    def rosenbrock(x: torch.Tensor) -> torch.Tensor:
        return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)

    slope = Slope(rosenbrock)
    starts = torch.tensor([[-1.2, 1.0], [0.3, 0.4], [2.0, 2.0]])
    found, losses = minimise(slope, starts, 120)
    assert found == pytest.approx(np.ones((3, 2)), abs=1e-2)
    assert slope.calls == [3] * 121
    assert torch.equal(losses, rosenbrock(found))
    assert torch.allclose(minimise(slope, starts[1:2], 120)[0], found[1:2], atol=1e-3)  # the others change nothing


def test_the_descent_never_goes_up_and_survives_where_there_is_no_loss() -> None:
    def hole(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] < 0.5, torch.nan, (x - 1).square().sum(1).sqrt())

    found, _ = minimise(Slope(hole), torch.tensor([[9.0, -9.0], [1.0, 1.0], [0.6, 8.0]]), 60)
    assert found.isfinite().all()
    assert (hole(found) < 1).all()
