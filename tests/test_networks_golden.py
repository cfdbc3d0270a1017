"""The networks against numbers of the official TensorFlow code (tests/data/official_*.npz), and the laws they obey.

Everything is float32, as the golden run was. In float64 the differences would be no smaller, 3e-6 of the images and
3e-4 of single variables' gradients: they are the golden run's own rounding, the latter in sums that nearly cancel.
"""

from functools import cache, cached_property, partial
from math import floor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from progan.config import DiscriminatorConfig, GeneratorConfig
from progan.images import box_down, nearest_up
from progan.interop.official import OfficialSnapshot, import_array, official_name, read
from progan.layers import EqualizedConv2d
from progan.losses import gradient_norms, wgan_gp_d
from progan.networks import Discriminator, Generator, parameter_count
from progan.ops import leaky_relu_
from progan.pull_back import Pullbacks
from progan.stddev import minibatch_stddev
from progan.support.errors import ConfigError
from tests.devices import looser

N = TypeVar("N", Generator, Discriminator)
DATA = Path(__file__).parent / "golden"
CASES = [(name, i) for name in "acd" for i in range(5)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Golden:
    """One snapshot at one lod, on a device: the official arrays and the position of our networks."""

    def __init__(self, name: str, i: int, device: torch.device) -> None:
        arrays, self.snapshot = _load(name, device)
        self.looser = looser(device)
        suffix = f"_{i}"
        self.wanted = {key.removesuffix(suffix): arrays[key] for key in arrays if key.endswith(suffix)}
        self.gradients = {key.split("/", 1)[1]: arrays[key] for key in arrays if key.startswith(f"dgrad{suffix}/")}
        lod = float(arrays["lods"][i])
        full = self.snapshot.d.config.resolution
        self.halvings = floor(lod)
        self.stage = {"resolution": full // 2**self.halvings, "alpha": 1 - (lod - floor(lod))}
        self.critic = partial(self.snapshot.d, **self.stage)
        self.z, self.images, self.fakes, self.eps = (
            torch.from_numpy(arrays[key]).to(device) for key in ("z", "images", "fakes", "eps")
        )
        self.labels = torch.from_numpy(arrays["labels"]).to(device) if arrays["labels"].shape[1] else None

    def close(self, ours: Tensor, wanted: np.ndarray | Tensor, tolerance: float = 1e-5) -> bool:
        """`close`, as far as the device lets it be."""
        return close(ours, wanted, self.looser * tolerance)

    def working(self, images: Tensor) -> Tensor:
        """Full resolution -> the resolution at work, by box filters, as the official D does inside."""
        for _ in range(self.halvings):
            images = box_down(images)
        return images

    def full(self, images: Tensor) -> Tensor:
        """The resolution at work -> full resolution, by repeating pixels, as the official G does inside."""
        for _ in range(self.halvings):
            images = nearest_up(images)
        return images

    @cached_property
    def norms_and_loss(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Gradient norms in full-resolution pixels, D's loss, and the loss's gradient by official variable.

        The norms are taken by differentiating through the box filter down to the full-resolution mix.
        """
        d = self.snapshot.d
        mix = (self.images + (self.fakes - self.images) * self.eps).requires_grad_()
        scores, _ = self.critic(self.working(mix))
        (slope,) = torch.autograd.grad(scores.sum(), mix, create_graph=True)
        norms = slope.square().sum((1, 2, 3)).sqrt()
        reals, _ = self.critic(self.working(self.images))
        fakes, _ = self.critic(self.working(self.fakes))
        loss = (fakes - reals + 10 * (norms - 1) ** 2 + 0.001 * reals**2).mean()
        gradients = torch.autograd.grad(loss, list(d.parameters()), allow_unused=True)
        names = [official_name(name, d) for name, _ in d.named_parameters()]
        return norms.detach(), loss.detach(), {n: g for n, g in zip(names, gradients, strict=True) if g is not None}


@cache
def _load(name: str, device: torch.device) -> tuple[dict[str, np.ndarray], OfficialSnapshot]:
    snapshot = read(DATA / f"official_{name}.pkl")
    for network in (snapshot.g, snapshot.d, snapshot.gs):
        network.to(device)
    with np.load(DATA / f"official_{name}.npz") as file:
        return dict(file), snapshot


@cache
def _golden(name: str, i: int, device: torch.device) -> Golden:
    return Golden(name, i, device)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-lod{case[1]}")
def golden(request: pytest.FixtureRequest, device: torch.device) -> Golden:
    return _golden(*request.param, device)


def close(ours: Tensor, wanted: np.ndarray | Tensor, tolerance: float = 1e-5) -> bool:
    """Whether the largest difference is within `tolerance` of the largest wanted magnitude."""
    ours, wanted = ours.cpu(), torch.as_tensor(wanted).cpu()
    assert ours.shape == wanted.shape
    return bool((ours - wanted).abs().max() <= tolerance * wanted.abs().max())


# ---------------------------------------------------------------------------------------------------------------------
# Golden data


@pytest.mark.parametrize("which", ["g", "gs"])
def test_images_are_the_official_ones(golden: Golden, which: str) -> None:
    generator = getattr(golden.snapshot, which)
    with torch.no_grad():
        images = generator(golden.z, golden.labels, **golden.stage)
    assert images.shape[-1] == golden.stage["resolution"]
    assert golden.close(golden.full(images), golden.wanted[which.capitalize()])


def test_scores_and_logits_are_the_official_ones(golden: Golden) -> None:
    with torch.no_grad():
        scores, logits = golden.critic(golden.working(golden.images))
    assert golden.close(scores[:, None], golden.wanted["Dscore"])
    assert logits.shape == golden.wanted["Dlabel"].shape
    assert logits.numel() == 0 or golden.close(logits, golden.wanted["Dlabel"])


def test_gradient_norms_are_the_official_ones(golden: Golden) -> None:
    norms, _, _ = golden.norms_and_loss
    assert golden.close(norms, golden.wanted["gradnorm"])


def test_the_norm_in_full_pixels_is_the_working_one_over_2_to_the_halvings(golden: Golden) -> None:
    # k halvings average 4^k pixels into one: each gets 1 / 4^k of its slope, and 4^k such squares add up to
    # norm^2 / 4^k.
    mix = golden.images + (golden.fakes - golden.images) * golden.eps
    back = Pullbacks()
    scores, _ = golden.critic(golden.working(mix), back=back)
    norms = gradient_norms(back, scores).detach() / 2**golden.halvings
    assert golden.close(norms, golden.norms_and_loss[0])
    assert golden.close(norms, golden.wanted["gradnorm"])


def test_losses_are_the_official_ones(golden: Golden) -> None:
    assert golden.close(golden.norms_and_loss[1], golden.wanted["dloss"])


def test_the_penalty_in_full_pixels_is_the_working_one_with_a_larger_target(golden: Golden) -> None:
    # (norm / 2^k - T)^2 / T^2 = (norm - T 2^k)^2 / (T 2^k)^2
    reals, fakes = golden.working(golden.images), golden.working(golden.fakes)
    terms = wgan_gp_d(golden.critic, reals, fakes, golden.eps, gp_target=1.0 * 2**golden.halvings)
    loss = torch.stack(list(terms.values())).sum()
    assert golden.close(loss.detach(), golden.wanted["dloss"])
    gradients = torch.autograd.grad(loss, list(golden.snapshot.d.parameters()), allow_unused=True)
    wanted = golden.norms_and_loss[2]
    for (name, _), gradient in zip(golden.snapshot.d.named_parameters(), gradients, strict=True):
        official = official_name(name, golden.snapshot.d)
        assert (gradient is None) == (official not in wanted)
        assert gradient is None or golden.close(gradient, wanted[official], 1e-3), official


def test_the_same_variables_take_part(golden: Golden) -> None:
    # The official run also lists the variables out of reach at this lod, with zeros.
    wanted = {name for name, gradient in golden.gradients.items() if gradient.any()}
    assert {name for name, gradient in golden.norms_and_loss[2].items() if gradient.any()} == wanted
    assert {official_name(name, golden.snapshot.d) for name, _ in golden.snapshot.d.named_parameters()} == set(
        golden.gradients
    )


def test_loss_gradients_are_the_official_ones(golden: Golden) -> None:
    ours = golden.norms_and_loss[2]
    off = total = 0.0
    for name, gradient in golden.gradients.items():
        wanted = import_array(name, gradient)
        if wanted.any():
            assert golden.close(ours[name], wanted, 1e-3), name
            off += float((ours[name].cpu() - wanted).double().square().sum())
            total += float(wanted.double().square().sum())
    assert off**0.5 <= golden.looser * 1e-4 * total**0.5


def test_a_penalty_target_other_than_one_scales_alike(device: torch.device) -> None:
    golden = _golden("a", 3, device)
    reals, fakes = golden.working(golden.images), golden.working(golden.fakes)
    ours = wgan_gp_d(golden.critic, reals, fakes, golden.eps, gp_target=0.05 * 2**golden.halvings)["gradient_penalty"]
    norms = golden.norms_and_loss[0]
    assert golden.close(ours.detach(), 10 * ((norms - 0.05) ** 2).mean() / 0.05**2)


# ---------------------------------------------------------------------------------------------------------------------
# Laws


SMALL = {"resolution": 32, "fmap_base": 64, "fmap_max": 8}


def make_generator(**fields: Any) -> Generator:
    return perturbed(Generator(GeneratorConfig(**SMALL | fields)))


def make_discriminator(**fields: Any) -> Discriminator:
    return perturbed(Discriminator(DiscriminatorConfig(**SMALL | fields)))


def perturbed(network: N) -> N:
    """The same weights and biases each time, the biases away from zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            numbers = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(numbers * 0.3 if name.endswith("bias") or not network.config.equalized else numbers)
    return network


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_a_new_block_enters_g_silently(resolution: int, fused: bool) -> None:
    g = make_generator(fused_scaling=fused)
    z = draw(3, g.config.z_dim)
    images = g(z, resolution=resolution, alpha=0.0)
    assert torch.equal(images, nearest_up(g(z, resolution=resolution // 2)))
    assert not torch.equal(images, g(z, resolution=resolution, alpha=0.1))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_a_new_block_enters_d_silently(resolution: int, fused: bool) -> None:
    d = make_discriminator(fused_scaling=fused)
    images = draw(4, 3, resolution, resolution)
    scores, _ = d(images, resolution=resolution, alpha=0.0)
    assert torch.equal(scores, d(box_down(images), resolution=resolution // 2)[0])
    assert not torch.equal(scores, d(images, resolution=resolution, alpha=0.1)[0])


@pytest.mark.parametrize("resolution", [4, 8, 32])
def test_fused_g_is_plain_g(resolution: int) -> None:
    fused, plain = make_generator(fused_scaling=True).double(), make_generator(fused_scaling=False).double()
    z = draw(3, fused.config.z_dim, dtype=torch.float64)
    exact: list[Tensor] = []  # the images themselves are float32
    for network in (fused, plain):
        network.to_rgb[str(resolution)].register_forward_hook(lambda layer, inputs, out: exact.append(out))
    with torch.no_grad():
        assert close(fused(z, resolution=resolution), plain(z, resolution=resolution))
    assert close(*exact, 1e-12)


def test_fused_down_pools_before_the_bias_and_the_activation() -> None:
    fused, plain = EqualizedConv2d(2, 3, 3, resample="down"), EqualizedConv2d(2, 3, 3)
    fused.load_state_dict(plain.state_dict())
    x = draw(2, 2, 8, 8)
    with torch.no_grad():
        assert close(fused(x), box_down(plain(x)))


@pytest.mark.parametrize(
    ("fields", "g_count", "d_count"),
    [
        ({}, 23_079_115, 23_087_249),  # official TensorFlow, 1024x1024
        ({"resolution": 128, "fmap_base": 2048}, 13_629_810, 13_636_897),  # the ablation study's network
        ({"resolution": 32, "fmap_base": 4096, "fmap_max": 128}, 1_296_908, 1_298_689),  # the CIFAR-10 network
    ],
    ids=["1024", "ablation", "cifar10"],
)
def test_parameter_counts_are_the_official_ones(fields: dict[str, Any], g_count: int, d_count: int) -> None:
    with torch.device("meta"):
        assert parameter_count(Generator(GeneratorConfig(**fields))) == g_count
        assert parameter_count(Discriminator(DiscriminatorConfig(**fields))) == d_count


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("label_dim", [0, 5])
def test_channels_and_labels(channels: int, label_dim: int) -> None:
    g = make_generator(channels=channels, label_dim=label_dim)
    d = make_discriminator(channels=channels, label_dim=label_dim)
    labels = torch.eye(5)[:4] if label_dim else None
    images = g(draw(4, g.config.z_dim), labels, resolution=16)
    assert images.shape == (4, channels, 16, 16)
    scores, logits = d(images, resolution=16)
    assert scores.shape == (4,)
    assert logits.shape == (4, label_dim)


def test_labels_are_normalised_with_the_latent() -> None:
    g = make_generator(label_dim=5)
    z, labels = draw(4, g.config.z_dim), torch.eye(5)[:4]
    with torch.no_grad():
        assert close(g(3 * z, 3 * labels), g(z, labels))
        assert not close(g(z, labels.flip(0)), g(z, labels), 1e-2)
    with pytest.raises(ValueError, match=r"labels.*\[4, 5\]"):
        g(z)


def test_stages_outside_the_network_are_refused() -> None:
    g, d = make_generator(), make_discriminator()
    for stage in ({"resolution": 64}, {"resolution": 12}, {"alpha": 1.5}):
        with pytest.raises(ConfigError):
            g(draw(1, g.config.z_dim), **stage)
        with pytest.raises(ConfigError):
            d(draw(1, 3, 32, 32), **stage)
    with pytest.raises(ValueError, match="images"):
        d(draw(1, 3, 16, 16))


@pytest.mark.parametrize("batch", [1, 3, 5, 6, 7])
def test_any_batch_trains_without_nan(batch: int) -> None:
    g, d = make_generator(), make_discriminator()
    critic = partial(d, resolution=8, alpha=0.5)
    fakes = g(draw(batch, g.config.z_dim), resolution=8, alpha=0.5)
    terms = wgan_gp_d(critic, draw(batch, 3, 8, 8, seed=1), fakes, torch.rand(batch, 1, 1, 1))
    loss = torch.stack(list(terms.values())).sum() - critic(fakes)[0].mean()
    gradients = torch.autograd.grad(loss, [*g.parameters(), *d.parameters()], allow_unused=True)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


# ---------------------------------------------------------------------------------------------------------------------
# Minibatch stddev


def slow_stddev(x: np.ndarray, group: int, sets: int) -> np.ndarray:
    """Paper section 3 and the official grouping, image by image: the number that each image of a batch gets."""
    numbers = np.empty(len(x))
    size = len(x) // sets
    for start in range(0, len(x), size):
        groups = max(1, size // group)
        for i in range(size):
            members = [x[start + j].astype(np.float64) for j in range(size) if j % groups == i % groups]
            mean = sum(members) / len(members)
            variance = sum((member - mean) ** 2 for member in members) / len(members)
            numbers[start + i] = np.sqrt(variance + 1e-8).mean()
    return numbers


@pytest.mark.parametrize("sets", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 12, 13])
@pytest.mark.parametrize("group", [2, 4, 16])
def test_minibatch_stddev_is_the_slow_one(group: int, size: int, sets: int, device: torch.device) -> None:
    x = draw(size * sets, 3, 2, 2) * (1 + torch.arange(size * sets)).view(-1, 1, 1, 1)  # no two groups alike
    y = minibatch_stddev(x.to(device), group, sets).cpu()
    assert torch.equal(y[:, :3], x)
    wanted = torch.from_numpy(slow_stddev(x.numpy(), group, sets))
    assert close(y[:, 3].double(), wanted[:, None, None].expand(-1, 2, 2))


@pytest.mark.parametrize("size", [1, 3, 4, 6])
def test_sets_never_mix(size: int) -> None:
    d = make_discriminator()
    reals, fakes = draw(size, 3, 16, 16), 10 * draw(size, 3, 16, 16, seed=1)  # as different as night and day
    with torch.no_grad():
        together, _ = d(torch.cat([reals, fakes]), resolution=16, sets=2)
        apart = torch.cat([d(reals, resolution=16)[0], d(fakes, resolution=16)[0]])
        mixed, _ = d(torch.cat([reals, fakes]), resolution=16)
    assert close(together, apart)
    assert not close(mixed, apart, 1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Derivatives of our own autograd functions


@pytest.mark.parametrize(("kernel", "resample"), [(1, None), (3, None), (3, "up"), (3, "down")])
@pytest.mark.parametrize("size", [2, 4])
def test_derivatives_of_convolutions(kernel: int, resample: str | None, size: int) -> None:
    layer = EqualizedConv2d(2, 3, kernel, resample=resample).double()

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    inputs = tuple(
        draw(*shape, seed=i, dtype=torch.float64).requires_grad_()
        for i, shape in enumerate([(2, 2, size, size), (3, 2, kernel, kernel), (3,)])
    )
    assert torch.autograd.gradcheck(convolve, inputs)
    assert torch.autograd.gradgradcheck(convolve, inputs)


@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_convolutions_are_pytorchs_own(resample: str | None) -> None:
    layer = EqualizedConv2d(2, 3, 3, resample=resample).double()
    x = draw(2, 2, 6, 6, dtype=torch.float64)
    up = nearest_up(x) if resample == "up" else x
    wanted = nn.functional.conv2d(up, layer.weight * layer.scale, layer.bias, padding=1)
    assert torch.allclose(layer(x), box_down(wanted) if resample == "down" else wanted, rtol=1e-12, atol=1e-12)


def test_derivatives_of_leaky_relu() -> None:
    x = draw(3, 4, dtype=torch.float64)
    x = (x + 0.1 * x.sign()).requires_grad_()  # away from the kink
    assert torch.autograd.gradcheck(lambda x: leaky_relu_(x.clone()), x)
    assert torch.autograd.gradgradcheck(lambda x: leaky_relu_(x.clone()), x)
    y = torch.tensor([-1.0, 2.0])
    assert leaky_relu_(y) is y
    assert torch.equal(y, torch.tensor([-0.2, 2.0]))


@pytest.mark.parametrize("fused", [True, False])
def test_backward_and_grad_agree(fused: bool) -> None:
    d = make_discriminator(fused_scaling=fused)
    critic = partial(d, resolution=16, alpha=0.5)
    terms = wgan_gp_d(critic, draw(4, 3, 16, 16), draw(4, 3, 16, 16, seed=1), torch.rand(4, 1, 1, 1))
    loss = torch.stack(list(terms.values())).sum()
    wanted = torch.autograd.grad(loss, list(d.parameters()), allow_unused=True, retain_graph=True)
    loss.backward()
    for parameter, gradient in zip(d.parameters(), wanted, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert parameter.grad is None or gradient is None or torch.equal(parameter.grad, gradient)
