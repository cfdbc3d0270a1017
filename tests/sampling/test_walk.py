"""Walks through latent space: smooth, closed, the same for a seed; and their pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from progan.config import GeneratorConfig
from progan.networks import Generator
from progan.sampling.images import sample, seed_latents
from progan.sampling.walk import growth_frames, random_walk, round_trip, walk_frames
from progan.support.errors import ConfigError
from progan.support.rng import latents


def generator(**fields: int) -> Generator:
    torch.manual_seed(0)
    return Generator(GeneratorConfig(resolution=8, fmap_base=32, fmap_max=16, **fields))


def frames_of(g: Generator, **how) -> np.ndarray:
    return np.stack(
        [np.array(frame) for frame in walk_frames(g, **{"frames": 12, "smoothing": 2.0, "pixels": 1, **how})]
    )


def test_a_random_walk_is_noise_smoothed_over_a_closed_time() -> None:
    walk = random_walk(seed=3, walkers=2, frames=200, dim=16, smoothing=5.0).numpy()
    assert walk.shape == (200, 2, 16)
    noise = latents(3, "random walk", 1, 200, 16).numpy()
    smooth = gaussian_filter1d(noise.astype(float), 5.0, axis=0, mode="wrap", truncate=8.0)
    assert walk[:, 1] == pytest.approx(smooth / np.sqrt(np.mean(smooth**2)), abs=1e-5)


def test_a_random_walk_ends_where_it_begins_and_does_not_jump() -> None:
    walk = random_walk(seed=0, walkers=1, frames=150, dim=512, smoothing=10.0)[:, 0]
    steps = (walk - walk.roll(1, 0)).square().mean(1).sqrt()  # the first is from the end to the beginning
    assert steps.max() < 2 * steps.min()
    assert (walk[0] - walk[75]).square().mean() > 1  # and gets about


def test_a_walker_keeps_its_path_when_others_come() -> None:
    alone, among = (random_walk(7, walkers, 40, 8, 3.0)[:, 0] for walkers in (1, 5))
    assert torch.equal(alone, among)


def test_no_smoothing_gives_the_noise_itself() -> None:
    walk = random_walk(1, 1, 9, 4, 0.0)[:, 0]
    noise = latents(1, "random walk", 0, 9, 4)
    assert torch.allclose(walk, noise / noise.square().mean().sqrt(), atol=1e-6)


def test_a_round_trip_visits_every_point_at_even_pace() -> None:
    points = seed_latents([3, 7, 12], 64)
    trip = round_trip(points, 30)
    assert torch.allclose(trip[[0, 10, 20]], points, atol=1e-5)
    unit = trip / trip.norm(dim=1, keepdim=True)
    angles = (unit * unit.roll(-1, 0)).sum(1).acos().view(3, 10)
    assert (angles.amax(1) / angles.amin(1)).max() < 1.01
    assert torch.allclose(round_trip(points, 30, start=2)[:10], trip[20:], atol=1e-5)


def test_a_round_trip_past_the_same_point_twice_stands_still() -> None:
    point = seed_latents([5], 16)
    assert torch.allclose(round_trip(point.repeat(2, 1), 8), point.expand(8, 16), atol=1e-5)


def test_the_pictures_of_a_round_trip_are_the_images_of_its_seeds() -> None:
    g = generator()
    pictures = frames_of(g, seeds=[3, 7, 12], grid=(2, 1))
    images = sample(g, seed_latents([3, 7, 12], 16)).transpose(0, 2, 3, 1).astype(int)
    assert pictures.shape == (12, 8, 16, 3)
    for frame, left, right in ((0, 0, 1), (4, 1, 2), (8, 2, 0)):
        assert np.abs(pictures[frame, :, :8] - images[left]).max() <= 1
        assert np.abs(pictures[frame, :, 8:] - images[right]).max() <= 1


def test_a_round_trip_through_latents_with_their_classes() -> None:
    g, points = generator(label_dim=3), seed_latents([4, 2, 8], 16)
    pictures = frames_of(g, points=(points, [0, 2, 2]))
    wanted = sample(g, points, torch.eye(3)[[0, 2, 2]]).transpose(0, 2, 3, 1).astype(int)
    assert np.abs(pictures[[0, 4, 8]] - wanted).max() <= 1


def test_labels_go_along() -> None:
    g = generator(label_dim=3)
    pictures = frames_of(g, seeds=[4, 2])
    wanted = sample(g, seed_latents([4, 2], 16), torch.eye(3)[[1, 2]]).transpose(0, 2, 3, 1).astype(int)
    assert np.abs(pictures[[0, 6]] - wanted).max() <= 1
    walk = random_walk(0, 4, 12, 16, 2.0)[5]
    wanted = sample(g, walk, torch.eye(3)[[0, 1, 2, 0]]).transpose(0, 2, 3, 1).astype(int)
    assert np.abs(frames_of(g, grid=(4, 1))[5] - np.concatenate(wanted, axis=1)).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "grid", "size"), [(1, (1, 1), 8), (20, (1, 1), 24), (20, (2, 1), 32), (16, (2, 1), 16)]
)
def test_small_pictures_are_enlarged_by_whole_factors(pixels: int, grid: tuple[int, int], size: int) -> None:
    pictures = frames_of(generator(), frames=2, pixels=pixels, grid=grid)
    assert pictures.shape[2] == size
    factor = size // (8 * grid[0])
    assert np.array_equal(pictures, pictures[:, ::factor, ::factor].repeat(factor, 1).repeat(factor, 2))


def test_a_stage_of_the_growth_can_be_shown() -> None:
    assert frames_of(generator(), resolution=4, alpha=1.0).shape == (12, 4, 4, 3)
    with pytest.raises(ConfigError, match="resolution: 16 is not one of 4, 8"):
        frames_of(generator(), resolution=16)


def test_a_round_trip_needs_two_images() -> None:
    with pytest.raises(ConfigError, match="--seeds: a round trip needs at least two images"):
        frames_of(generator(), seeds=[3])
    with pytest.raises(ConfigError, match=r"--latents: a round trip needs at least two images, such as a.npz,b.npz"):
        frames_of(generator(), points=(seed_latents([3], 16), [0]))


def test_growth_shows_each_picture_equally_long(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("L", (4, 4), 100 * i).save(tmp_path / f"{i}.png")
    shown = [np.array(frame)[0, 0, 0] for frame in growth_frames(sorted(tmp_path.iterdir()), 9)]
    assert shown == [0, 0, 0, 100, 100, 100, 200, 200, 200]
