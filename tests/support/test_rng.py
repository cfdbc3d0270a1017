"""Every random number is a pure function of (seed, purpose, position)."""

import numpy as np
import pytest
import torch

from progan.support.rng import data_order, keyed_generator, latents


def draw(seed: int, purpose: str, position: int = 0) -> torch.Tensor:
    return torch.randn(64, generator=keyed_generator(seed, purpose, position))


def test_the_same_key_gives_the_same_numbers() -> None:
    first = draw(3, "latents", 128)
    torch.randn(5)  # the global generator has no part in it
    assert torch.equal(draw(3, "latents", 128), first)
    assert torch.equal(latents(3, "latents", 128, 4, 16).flatten(), first)


@pytest.mark.parametrize("other", [(4, "latents", 128), (3, "mix", 128), (3, "latents", 132), (31, "latents", 28)])
def test_another_key_gives_other_numbers(other: tuple[int, str, int]) -> None:
    assert not (draw(*other) == draw(3, "latents", 128)).any()


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    latents(0, "latents", 0, 4, 4)
    data_order(0, 0, 4, 10)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_latents_are_standard_normal() -> None:
    z = latents(0, "latents", 0, 64, 512)
    assert z.shape == (64, 512)
    assert z.dtype == torch.float32
    assert abs(float(z.mean())) < 0.02  # 3.6 standard errors
    assert abs(float(z.std()) - 1) < 0.02


@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_every_epoch_shows_every_image_once_in_its_own_order(size: int) -> None:
    stream = data_order(5, 0, 3 * size, size).reshape(3, size)
    assert np.array_equal(np.sort(stream, axis=1), np.tile(np.arange(size), (3, 1)))
    if size == 60:
        assert not (stream[0] == stream[1]).all()
        assert not (stream[0] == np.arange(size)).all()
        assert not (data_order(6, 0, size, size) == stream[0]).all()


@pytest.mark.parametrize("batches", [[40], [1] * 40, [16, 16, 8], [3, 30, 7]])
def test_the_order_does_not_depend_on_how_it_is_cut_into_batches(batches: list[int]) -> None:
    starts = np.cumsum([0, *batches[:-1]])
    parts = [data_order(0, int(start), count, 11) for start, count in zip(starts, batches, strict=True)]
    assert np.array_equal(np.concatenate(parts), data_order(0, 0, 40, 11))
    assert np.array_equal(data_order(0, 25, 15, 11), data_order(0, 0, 40, 11)[25:])  # starting in the middle
