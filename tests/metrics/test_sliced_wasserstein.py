"""SWD against the official code's numbers, slow loops, a sort, another library, and its own laws."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from progan.metrics import sliced_wasserstein as sw
from progan.metrics.protocol import collect
from progan.support.errors import ConfigError, DataError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "official_metrics.npz")
A, B = GOLDEN["A"], GOLDEN["B"]  # uint8 [128, 3, 64, 64] each
FEW = {"images": 128, "directions": 64}


def sorted_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The definition: mean |difference| of sorted projections, [M, D] each."""
    return np.abs(np.sort(a, axis=0).astype(np.float64) - np.sort(b, axis=0)).mean(0)


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = x.double().view(len(x), 3, -1)
    return values.mean((0, 2)).float(), values.var((0, 2), correction=0).sqrt().float()


# Against the official code.


def test_the_pyramid_is_the_official_one(device: torch.device) -> None:
    levels = sw.laplacian_pyramid(torch.from_numpy(A[:4]).to(device).float())
    assert [level.shape[-1] for level in levels] == [64, 32, 16]
    for i, level in enumerate(levels):
        np.testing.assert_allclose(level.cpu().numpy(), GOLDEN[f"pyramid_{i}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["A", "B"])
def test_normalised_descriptors_are_the_official_ones(name: str) -> None:
    raw = torch.from_numpy(GOLDEN[f"raw_descriptors_{name}"]).flatten(1)
    ours = sw.normalize(raw, *moments(raw)).numpy()
    np.testing.assert_allclose(ours, GOLDEN[f"descriptors_{name}"], rtol=1e-5, atol=1e-5)


def test_the_distance_on_given_directions_is_the_official_one(device: torch.device) -> None:
    a, b = (torch.from_numpy(GOLDEN[f"descriptors_{name}"]).to(device) for name in "AB")
    ours = sw.sliced_distance(a, b, torch.from_numpy(GOLDEN["directions"]).T.contiguous().to(device))
    assert ours.mean() == pytest.approx(float(GOLDEN["distance"]), rel=1e-5)


@pytest.mark.slow
def test_the_whole_protocol_falls_among_the_ten_official_seeds() -> None:
    official = GOLDEN["swd_x1e3_by_seed"]  # [10, levels + 1]
    ours = np.median([list(sw.swd(A, B, images=128, seed=seed).values()) for seed in range(3)], axis=0)
    assert ((official.min(0) < ours) & (ours < official.max(0))).all()


def test_a_device_without_float64_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's has none: tensors there are stood in for by ones that refuse it."""
    to = torch.Tensor.to

    class Apple(torch.Tensor):
        device = torch.device("mps")  # type: ignore[assignment]

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            found = super().__torch_function__(func, types, args, kwargs or {})
            with torch._C.DisableTorchFunctionSubclass():
                if func is torch.Tensor.cpu:
                    return found.as_subclass(torch.Tensor)
                if torch.float64 in [x.dtype for x in (found, *args) if isinstance(x, torch.Tensor)]:
                    raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
            return found

    def moved(x: torch.Tensor, device: torch.device) -> torch.Tensor:
        assert x.dtype != torch.float64
        return x.as_subclass(Apple) if device.type == "mps" else to(x, device)

    wanted = sw.swd(A, B, **FEW)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    assert sw.swd(A, B, device="mps", **FEW) == wanted


# Against independent implementations.


def test_the_pyramid_equals_slow_loops() -> None:
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256

    def filtered(x: np.ndarray) -> np.ndarray:
        def inside(i: int) -> int:
            return -i if i < 0 else 2 * (len(x) - 1) - i if i >= len(x) else i

        y = np.zeros_like(x)
        for i, j in np.ndindex(*x.shape):
            for u, v in np.ndindex(5, 5):
                y[i, j] += kernel[u, v] * x[inside(i + u - 2), inside(j + v - 2)]
        return y

    image = A[5, 1, 16:48, 8:40].astype(np.float64)
    small = filtered(image)[::2, ::2]
    zeros = np.zeros((32, 32))
    zeros[::2, ::2] = small
    fine, coarse = sw.laplacian_pyramid(torch.from_numpy(image).float()[None, None])
    np.testing.assert_allclose(coarse[0, 0].numpy(), small, atol=1e-4)
    np.testing.assert_allclose(fine[0, 0].numpy(), image - 4 * filtered(zeros), atol=1e-4)


def test_descriptors_are_the_patches_at_their_positions() -> None:
    level = torch.randn(3, 3, 16, 16)
    positions = sw.random_positions(3, 20, 16, torch.Generator().manual_seed(0))
    found = sw.descriptors(level, positions)
    for i, k in np.ndindex(3, 20):
        y, x = positions[i, k].tolist()
        assert torch.equal(found[i * 20 + k], level[i, :, y : y + 7, x : x + 7].flatten())


def test_positions_reach_every_corner_and_are_uniform() -> None:
    positions = sw.random_positions(1000, 128, 16, torch.Generator().manual_seed(0)).view(-1, 2)
    counts = torch.bincount(positions[:, 0] * 10 + positions[:, 1], minlength=100)
    assert len(counts) == 100
    assert ((counts - 1280).abs() < 6 * 1280**0.5).all()


def test_directions_are_unit_vectors_and_keyed() -> None:
    directions = sw.random_directions(sw.SwdProtocol(seed=1), 147)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(512))
    assert directions.mean().abs() < 5 / (512 * 147 * 147) ** 0.5
    assert not torch.equal(directions, sw.random_directions(sw.SwdProtocol(seed=2), 147))


def test_the_collector_follows_the_protocol_step_by_step(device: torch.device) -> None:
    """Every descriptor of both sets at once, normalised, projected, sorted: nothing of the collector's economy."""
    protocol = sw.SwdProtocol(images=128, patches=30, directions=32)
    streams = {"reals": A, "fakes": B}
    collected = {role: collect(x, sw.SwdCollector(protocol, role, device)) for role, x in streams.items()}
    found = sw.swd_values(collected["fakes"], collected["reals"])
    slow = {}
    for i, r in enumerate((64, 32, 16)):
        projections = {}
        for role, images in streams.items():
            collector = sw.SwdCollector(protocol, role)
            collector._blocks = [16] * 8
            positions = torch.cat([collector._positions(r, block) for block in range(8)])
            raw = sw.descriptors(sw.laplacian_pyramid(torch.from_numpy(images).float())[i], positions)
            values = raw.double().view(len(raw), 3, -1)
            values = (values - values.mean((0, 2))[:, None]) / values.std((0, 2), correction=0)[:, None]
            projections[role] = (values.view(len(raw), -1) @ sw.random_directions(protocol, 147).double().T).numpy()
        slow[str(r)] = 1e3 * sorted_distance(projections["reals"], projections["fakes"]).mean()
    slow["average"] = float(np.mean(list(slow.values())))
    assert found == pytest.approx(slow, rel=3e-5)


def test_another_library_finds_the_same_distance() -> None:
    ot = pytest.importorskip("ot", reason="pip install pot")
    a, b = (GOLDEN[f"descriptors_{name}"].astype(np.float64) for name in "AB")
    directions = GOLDEN["directions"].astype(np.float64)
    theirs = ot.sliced_wasserstein_distance(a, b, projections=directions, p=1)
    ours = sw.sliced_distance(*(torch.from_numpy(x).float() for x in (a, b, directions.T.copy())))
    assert ours.mean() == pytest.approx(theirs, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.02])
def test_counting_equals_sorting(shift: float) -> None:
    """Within 1e-5 also at the noise floor, where the distance is smallest and the relative error largest."""
    level = sw.laplacian_pyramid(torch.from_numpy(np.concatenate([A, B])).float())[0]
    sets = []
    for seed in (0, 1):
        patches = sw.descriptors(level, sw.random_positions(256, 512, 64, torch.Generator().manual_seed(seed)))
        sets.append(sw.normalize(patches, *moments(patches)))  # [131072, 147]
    sets[1] = sets[1] + shift
    directions = sw.random_directions(sw.SwdProtocol(), 147)
    counted = sw.sliced_distance(*sets, directions)
    exact = np.concatenate([sorted_distance(*((x @ some.T).numpy() for x in sets)) for some in directions.split(64)])
    assert counted.mean() == pytest.approx(exact.mean(), rel=1e-5)
    assert counted == pytest.approx(exact, rel=2e-3)  # one direction alone


def test_counting_takes_values_of_any_size() -> None:
    a = torch.tensor([[-200.0], [-40.0], [0.0], [1e-6], [5.0], [100.0]])
    ours = sw.sliced_distance(a, a * 1.5, torch.ones(1, 1))
    assert ours[0] == pytest.approx(float((a * 0.5).abs().mean()), rel=0.01)  # bins are wide out there
    assert sw.sliced_distance(a, a, torch.ones(1, 1))[0] == 0
    assert sw.sliced_distance(torch.tensor([[1e30], [-1e30]]), torch.zeros(2, 1), torch.ones(1, 1))[0] > 1e6


# Laws.


def test_sets_of_equal_images_are_at_the_noise_floor() -> None:
    floor = sw.swd(A[:64], A[64:], images=64, directions=64)
    same = sw.swd(A, A, **FEW)
    other = sw.swd(A, B, **FEW)
    assert all(same[level] < floor[level] for level in floor)
    assert 4 * same["average"] < other["average"]


def test_the_distance_is_symmetric() -> None:
    protocol = sw.SwdProtocol(**FEW)
    a, b = collect(A, sw.SwdCollector(protocol, "reals")), collect(B, sw.SwdCollector(protocol, "fakes"))
    assert sw.swd_values(a, b) == sw.swd_values(b, a)


def noisy(sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, A.shape)
    return np.clip(np.rint(A + noise), 0, 255).astype(np.uint8)


def blurred(times: int) -> np.ndarray:
    x = A.astype(np.float64)
    for _ in range(times):
        for axis in (2, 3):
            x = (np.roll(x, 1, axis) + 2 * x + np.roll(x, -1, axis)) / 4
    return np.rint(x).astype(np.uint8)


@pytest.mark.parametrize("damage", [noisy, blurred])
def test_more_damage_is_further_away_and_most_at_the_finest_level(damage) -> None:  # type: ignore[no-untyped-def]
    steps = [damage(x) for x in ((2, 5, 10, 20) if damage is noisy else (1, 2, 4, 8))]
    found = [sw.swd(A, fakes, **FEW) for fakes in [A, *steps]]
    for level in ("64", "average"):
        assert all(before[level] < after[level] for before, after in pairwise(found))
    assert found[-1]["64"] > 3 * found[-1]["16"]


def test_missing_structure_shows_at_the_coarsest_level() -> None:
    """Fine detail is kept, but all images share the low frequencies of one."""
    levels = sw.laplacian_pyramid(torch.from_numpy(A).float())
    levels[2] = levels[2][:1].expand_as(levels[2])
    images = levels[2]
    for detail in (levels[1], levels[0]):
        images = sw._up(images) + detail
    fakes = images.round().clamp(0, 255).to(torch.uint8)
    before, after = sw.swd(A, A, **FEW), sw.swd(A, fakes, **FEW)
    gain = {level: after[level] - before[level] for level in ("64", "32", "16")}
    assert gain["16"] > 5 * max(gain["64"], gain["32"])


def test_how_the_stream_is_cut_changes_nothing() -> None:
    whole = sw.swd(A, B, **FEW)
    for size in (1, 7, 100):
        cut = [[x[i : i + size] for i in range(0, 128, size)] for x in (A, torch.from_numpy(B))]
        assert sw.swd(*cut, **FEW) == whole


def test_grayscale_is_repeated_to_rgb() -> None:
    gray = A[:, :1]
    assert sw.swd(gray, B[:, :1], **FEW) == sw.swd(np.repeat(gray, 3, 1), np.repeat(B[:, :1], 3, 1), **FEW)


def test_constant_images_are_measured_too() -> None:
    found = sw.swd(A, np.full_like(A, 128), **FEW)
    assert all(np.isfinite(value) and value > 100 for value in found.values())


def test_the_spread_tells_how_far_another_set_of_fakes_would_be() -> None:
    rng = np.random.default_rng(0)
    protocol = sw.SwdProtocol(images=128, patches=32, directions=16)
    reals = collect(A, sw.SwdCollector(protocol, "reals"))
    pool = np.concatenate([B, B[..., ::-1], noisy(6)])
    values, spreads = [], []
    for _ in range(12):
        stats = collect(pool[rng.permutation(len(pool))[:128]], sw.SwdCollector(protocol, "fakes", against=reals))
        values.append(list(sw.swd_values(stats, reals).values()))
        spreads.append(list(sw.swd_spread(stats).values()))
    ratio = np.mean(spreads, 0) / np.std(values, 0, ddof=1)
    assert ((ratio > 0.5) & (ratio < 3)).all(), ratio


# Mistakes.


@pytest.mark.parametrize(
    ("reals", "fakes", "message"),
    [
        (A[:, :, :8, :8], B, "8 pixels; SWD needs a power of two of at least 16"),
        (A[:, :, :24, :24], B, "24 pixels; SWD needs a power of two"),
        (A, B[:, :, :32, :32], "reals are 64x64 with 3 channels and fakes 32x32"),
        (A, B[:, :1], "fakes 64x64 with 1 channel;"),
        (A[:100], B, "100 images are too few, 128 are needed.*--images 100"),
        (A.astype(np.float32), B, "uint8"),
        (A[:, :2], B, "1 or 3 channels"),
        ([A[:64], A[:64, :, :32, :32]], B, "32x32 with 3 channels follow images of 64x64"),
    ],
)
def test_what_cannot_be_measured_is_named(reals: object, fakes: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sw.swd(reals, fakes, images=128, patches=4, directions=4)  # type: ignore[arg-type]


def test_fields_of_the_protocol_are_checked_and_named_by_their_hash() -> None:
    with pytest.raises(ConfigError, match="swd: directions is 0"):
        sw.SwdProtocol(directions=0)
    assert sw.SwdProtocol().hash == sw.SwdProtocol(seed=0).hash
    assert len({sw.SwdProtocol().hash, sw.SwdProtocol(seed=1).hash, sw.SwdProtocol(patches=64).hash}) == 3
