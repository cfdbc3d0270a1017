"""Nearest neighbours against a brute search, and what the memorisation numbers say of generators known to copy."""

import numpy as np
import pytest

from progan.metrics import neighbours
from progan.metrics.neighbours import memorisation, nearest, neighbour_sheet
from progan.support.errors import DataError

BASE = np.random.default_rng(0).normal(3, 1, (97, 12)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(3, 1, (31, 12)).astype(np.float32)


def slow_nearest(queries: np.ndarray, base: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = np.array([[np.sqrt(((q.astype(float) - b) ** 2).sum()) for b in base] for q in queries])
    order = distances.argsort(1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, 1)


@pytest.fixture(params=[(1024, 8192), (7, 10), (31, 1)])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one block, in blocks that do not divide the rows, and row by row of the base."""
    monkeypatch.setattr(neighbours, "QUERIES_AT_ONCE", request.param[0])
    monkeypatch.setattr(neighbours, "BASE_AT_ONCE", request.param[1])


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("k", [1, 5, 97])
def test_neighbours_are_those_of_a_brute_search(k: int) -> None:
    indices, distances = nearest(QUERIES, BASE, k)
    wanted, far = slow_nearest(QUERIES, BASE, k)
    assert (indices.dtype, distances.dtype) == (np.int64, np.float32)
    assert np.array_equal(indices, wanted)
    np.testing.assert_allclose(distances, far, rtol=1e-6)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("n", [97, 40])
def test_a_row_is_not_its_own_neighbour(n: int) -> None:
    indices, distances = nearest(BASE[:n], BASE, 4, exclude_self=True)
    wanted, far = slow_nearest(BASE[:n], BASE, 5)
    assert np.array_equal(wanted[:, 0], np.arange(n))
    assert np.array_equal(indices, wanted[:, 1:])
    np.testing.assert_allclose(distances, far[:, 1:], rtol=1e-6)
    assert nearest(BASE, BASE, 96, exclude_self=True)[0].shape == (97, 96)


def test_copies_are_at_distance_zero_however_large_the_features_are() -> None:
    base = BASE * 1000 + 1e5
    base[40] = base[3]
    indices, distances = nearest(base[[3, 7]], base, 3)
    assert indices[:, :2].tolist()[0] == [3, 40]  # of two at one distance, the first
    assert indices[1, 0] == 7
    assert distances[0, 0] == distances[0, 1] == distances[1, 0] == 0
    assert distances[0, 2] > 0
    assert nearest(base, base, 1, exclude_self=True)[0][[3, 40], 0].tolist() == [40, 3]


def test_near_ones_are_told_apart_beyond_float32_products() -> None:
    base = np.repeat(BASE[:1], 6, axis=0)
    base[:, 0] += np.array([5, 3, 0, 4, 1, 2]) * 1e-5  # |x|^2 is about 100, and its last digit 1e-5
    base = np.concatenate([base, BASE[1:] + 50])  # a centre far from them
    for k in range(1, 7):
        assert nearest(base[2:3], base, k)[0].tolist() == [[2, 4, 5, 1, 3, 0][:k]]


def test_what_cannot_be_searched() -> None:
    with pytest.raises(DataError, match=r"not \[31, 12\] and \[97, 11\]"):
        nearest(QUERIES, BASE[:, 1:], 1)
    with pytest.raises(DataError, match="98 neighbours: there are 97 images to find them among; ask for 1 to 97"):
        nearest(QUERIES, BASE, 98)
    with pytest.raises(DataError, match="there are 96 images"):
        nearest(BASE, BASE, 97, exclude_self=True)
    with pytest.raises(DataError, match="0 neighbours"):
        nearest(QUERIES, BASE, 0)
    with pytest.raises(DataError, match="at least 1 generated, 2 training"):
        memorisation(QUERIES, BASE[:1])
    with pytest.raises(DataError, match="1 held-out image"):
        memorisation(QUERIES, BASE, BASE[:0])


def draw(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


TRAIN, UNSEEN = draw(1500, seed=0), draw(1500, seed=1)


@pytest.mark.parametrize("held_out", [UNSEEN, None])
def test_an_innocent_generator(held_out: np.ndarray | None) -> None:
    found = memorisation(draw(1000, seed=2), TRAIN, held_out)
    assert found["ratio"] == pytest.approx(1, abs=0.05)
    assert found["near_share"] == pytest.approx(0.01, abs=0.01)


@pytest.mark.parametrize("held_out", [UNSEEN, None])
def test_the_numbers_are_those_of_a_brute_search(held_out: np.ndarray | None) -> None:
    train, fakes = TRAIN[:60], draw(50, seed=2) * 0.7
    own = slow_nearest(fakes, train, 1)[1][:, 0]
    reals = slow_nearest(train, train, 2)[1][:, 1] if held_out is None else slow_nearest(UNSEEN[:70], train, 1)[1][:, 0]
    near = np.quantile(reals, 0.01)
    wanted = {
        "fakes": np.median(own),
        "reals": np.median(reals),
        "ratio": np.median(own) / np.median(reals),
        "near": near,
        "near_share": (own < near).mean(),
    }
    assert memorisation(fakes, train, held_out if held_out is None else held_out[:70]) == pytest.approx(
        wanted, rel=1e-5
    )


def test_a_generator_that_copies() -> None:
    noise = 0.01 * draw(1000, seed=3)
    found = memorisation(TRAIN[:1000] + noise, TRAIN)
    assert found["ratio"] < 0.1
    assert found["near_share"] > 0.95
    some = draw(1000, seed=2)
    some[:50] = TRAIN[:50]  # which the median does not show
    found = memorisation(some, TRAIN, UNSEEN)
    assert found["ratio"] > 0.9
    assert found["near_share"] == pytest.approx(0.06, abs=0.01)


def test_a_data_set_that_holds_images_twice_says_so() -> None:
    found = memorisation(np.concatenate([TRAIN[:20], draw(80, seed=2)]), np.concatenate([TRAIN, TRAIN[:100]]))
    assert found["near"] == 0
    assert found["near_share"] == 0.2
    assert np.isnan(memorisation(TRAIN, np.concatenate([TRAIN, TRAIN]))["ratio"])


def test_the_reals_are_taken_from_all_of_the_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "REALS", 100)
    apart = np.concatenate([TRAIN[:500], 10 * UNSEEN[:500]])  # classes, one after the other
    wanted = np.median(slow_nearest(apart[::10], apart, 2)[1][:, 1])
    assert memorisation(QUERIES[:, :6], apart)["reals"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_has_a_row_per_image_with_its_neighbours_after_a_gap(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 200, (12, channels, 8, 8), dtype=np.uint8)
    fakes, found = images[:3], images[3:].reshape(3, 3, channels, 8, 8)
    sheet = neighbour_sheet(fakes, found, scale=2)
    pixels = np.asarray(sheet)[::2, ::2].reshape(24, -1, channels).transpose(2, 0, 1)  # [C, 3 * 8, 8 + 2 + 3 * 8]
    assert pixels.shape == (channels, 24, 34)
    for row in range(3):
        strip = pixels[:, 8 * row : 8 * row + 8]
        assert np.array_equal(strip[:, :, :8], fakes[row])
        assert (strip[:, :, 8:10] == 255).all()
        for i in range(3):
            assert np.array_equal(strip[:, :, 10 + 8 * i : 18 + 8 * i], found[row, i])
