"""The ingredients of the ablation study: each field of the networks changes its own thing, and nothing else."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from progan.config import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from progan.layers import ChannelNoise, LayerNorm, MinibatchDiscrimination, pixel_norm
from progan.losses import lsgan_d, lsgan_g, lsgan_noise
from progan.networks import Discriminator, Generator
from progan.presets import WHOLE_BATCH

SHAPE: dict[str, Any] = {"resolution": 16, "fmap_base": 64, "fmap_max": 16}
G, D = GeneratorConfig(**SHAPE), DiscriminatorConfig(**SHAPE)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def built(config: NetworkConfig) -> nn.Module:
    torch.manual_seed(0)
    return Generator(config) if isinstance(config, GeneratorConfig) else Discriminator(config)  # type: ignore[arg-type]


def shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in built(config).named_parameters()}


def changed(config: NetworkConfig, **fields: Any) -> tuple[set[str], set[str], set[str]]:
    """Names of parameters that are new, gone, and of another shape."""
    old, new = shapes(config), shapes(replace(config, **fields))
    other = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    return new.keys() - old.keys(), old.keys() - new.keys(), other


# ---------------------------------------------------------------------------------------------------------------------
# What each field adds, takes away and reshapes

G_CONVS = {f"blocks.{r}.{conv}" for r in (4, 8, 16) for conv in ("dense" if r == 4 else "conv0", "conv1")}
D_CONVS = {f"blocks.{r}.{conv}" for r in (8, 16) for conv in ("conv0", "conv1")} | {"head.conv", "head.dense0"}


def norms(convs: set[str]) -> set[str]:
    return {
        name.replace("conv0", "norm0").replace("conv1", "norm1").replace("head.conv", "head.norm0")
        .replace("head.dense0", "head.norm1").replace("blocks.4.dense", "blocks.4.norm0")
        for name in convs
    }  # fmt: skip


def test_batch_norm_comes_after_every_convolution_of_g_but_the_last_and_brings_the_bias() -> None:
    new, gone, other = changed(G, norm="batch")
    assert new == {f"{name}.{part}" for name in norms(G_CONVS) for part in ("weight", "bias")}
    assert gone == {f"{name}.bias" for name in G_CONVS}
    assert not other


def test_layer_norm_comes_after_every_convolution_of_d_but_the_first_and_brings_the_bias() -> None:
    new, gone, other = changed(D, norm="layer")
    assert new == {f"{name}.{part}" for name in norms(D_CONVS) for part in ("gain", "bias")}
    assert gone == {f"{name}.bias" for name in D_CONVS}
    assert not other


@pytest.mark.parametrize(
    ("config", "fields", "reshaped"),
    [
        (G, {"norm": "none"}, set()),
        (G, {"activation": "relu"}, set()),
        (G, {"output": "tanh"}, set()),
        (G, {"normalize_latent": False}, set()),
        (G, {"latent_dim": 5}, {"blocks.4.dense.weight"}),
        (G, {"equalized": False}, set()),
        (D, {"equalized": False}, set()),
        (D, {"fused_scaling": False}, set()),
        (D, {"stddev_group": 0}, {"head.conv.weight"}),
        (D, {"stddev_group": WHOLE_BATCH}, set()),
    ],
    ids=str,
)
def test_other_fields_leave_the_parameters_alone(config: Any, fields: dict[str, Any], reshaped: set[str]) -> None:
    assert changed(config, **fields) == (set(), set(), reshaped)


def test_minibatch_discrimination_has_a_projection_and_a_map_per_kernel() -> None:
    bare = replace(D, stddev_group=0)
    assert changed(bare, minibatch_kernels=7) == ({"head.discrimination.project.weight"}, set(), {"head.conv.weight"})
    config = replace(bare, minibatch_kernels=7, minibatch_dims=3)
    assert shapes(config)["head.discrimination.project.weight"] == (7 * 3, 16 * 4 * 4)
    assert shapes(config)["head.conv.weight"] == (16, 16 + 7, 3, 3)
    assert shapes(replace(config, stddev_group=4))["head.conv.weight"] == (16, 16 + 7 + 1, 3, 3)


# ---------------------------------------------------------------------------------------------------------------------
# What each field computes; whole steps of whole rows are in test_training.py


def with_weights_of(network: nn.Module, config: Any) -> nn.Module:
    other = built(config)
    other.load_state_dict(network.state_dict())
    return other


def test_tanh_is_the_last_thing_while_fading_too() -> None:
    g = built(G)
    tanh = with_weights_of(g, replace(G, output="tanh"))
    for resolution, alpha in ((16, 1.0), (16, 0.3), (4, 1.0)):
        images = g(draw(3, 16), resolution=resolution, alpha=alpha)
        assert torch.equal(tanh(draw(3, 16), resolution=resolution, alpha=alpha), images.tanh())


def test_a_latent_that_is_not_normalised_is_taken_as_it_is() -> None:
    config = replace(G, norm="none")  # pixel norm would make up for the latent's length
    g = built(config)
    plain = with_weights_of(g, replace(config, normalize_latent=False))
    z = 3 * draw(2, 16)
    assert not torch.allclose(plain(z), g(z), atol=1e-3)
    assert torch.equal(plain(pixel_norm(z)), g(z))


def test_relu_lets_nothing_negative_through() -> None:
    g = with_weights_of(built(G), replace(G, activation="relu", norm="none"))
    seen: list[Tensor] = []
    g.to_rgb["16"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))  # type: ignore[operator]
    g(draw(4, 16))
    assert float(seen[0].min()) == 0.0
    assert float(seen[0].max()) > 0.0


def test_the_whole_minibatch_is_one_stddev_group() -> None:
    groups = built(D)
    whole = with_weights_of(groups, replace(D, stddev_group=WHOLE_BATCH))
    images = draw(8, 3, 16, 16)
    assert not torch.allclose(whole(images)[0], groups(images)[0], atol=1e-6)
    assert torch.equal(whole(images[:4])[0], groups(images[:4])[0])


def test_batch_norm_uses_the_minibatch_to_train_and_its_averages_to_generate() -> None:
    g = built(replace(G, norm="batch"))
    z = draw(6, 16)
    together = g(z)
    assert not torch.allclose(g(z[:3]), together[:3], atol=1e-3)
    g.eval()
    assert torch.allclose(g(z[:3]), g(z)[:3], atol=1e-5)  # an image is then its seed's alone


def test_layer_norm_is_each_images_own() -> None:
    norm = LayerNorm(5)
    with torch.no_grad():
        norm.gain.fill_(1.7)
        norm.bias.copy_(draw(5, seed=3))
    for x in (3 * draw(4, 5, 2, 3) + 1, 3 * draw(4, 5)):
        wanted = np.empty(x.shape)
        for i, image in enumerate(x.double().numpy()):
            values = image.ravel()
            mean = sum(values) / len(values)
            std = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + 1e-4)
            for c in range(5):
                wanted[i, c] = (image[c] - mean) / std * 1.7 + float(norm.bias[c].detach())
        assert np.allclose(norm(x).detach().numpy(), wanted, atol=1e-5)


def slow_closeness(x: np.ndarray, weight: np.ndarray, kernels: int, dims: int) -> np.ndarray:
    """Salimans et al. (2016), section 3.2, by loops; float64 [N, kernels]."""
    n, scale = len(x), 1 / math.sqrt(x[0].size)
    points = np.zeros((n, kernels, dims))
    for i in range(n):
        for k in range(kernels):
            for b in range(dims):
                points[i, k, b] = scale * sum(x[i].ravel() * weight[k * dims + b])
    out = np.zeros((n, kernels))
    for i in range(n):
        for j in range(n):
            for k in range(kernels):
                if i != j:
                    out[i, k] += math.exp(-sum(abs(points[i, k, b] - points[j, k, b]) for b in range(dims)))
    return out


@pytest.mark.parametrize("sets", [1, 2, 3])
def test_minibatch_discrimination_is_the_slow_one(sets: int) -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(3 * 2 * 2, 4, 5)
    x = draw(6, 3, 2, 2)
    maps = layer(x, sets).detach()
    assert maps.shape == (6, 4, 2, 2)
    assert torch.equal(maps, maps[:, :, :1, :1].expand_as(maps))
    weight = layer.project.weight.detach().double().numpy()
    wanted = np.concatenate([slow_closeness(part, weight, 4, 5) for part in np.split(x.double().numpy(), sets)])
    assert np.allclose(maps[:, :, 0, 0].numpy(), wanted, rtol=1e-5)


def test_an_image_alone_is_close_to_none() -> None:
    assert not MinibatchDiscrimination(12, 4, 5)(draw(1, 3, 2, 2)).any()


# ---------------------------------------------------------------------------------------------------------------------
# LSGAN (appendix B)


class Toy:
    """score = the sum of an image, logits = its first three pixels."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, images: Tensor, *, sets: int = 1) -> tuple[Tensor, Tensor]:
        self.calls.append((len(images), sets))
        return images.flatten(1).sum(1), images.flatten(1)[:, :3]


REALS, FAKES, LABELS = draw(4, 1, 2, 2, seed=1), draw(4, 1, 2, 2, seed=2), torch.eye(3)[[0, 2, 1, 0]]


def test_lsgan_wants_0_of_reals_and_1_of_fakes() -> None:
    toy = Toy()
    terms = lsgan_d(toy, REALS, FAKES, LABELS, fake_weight=0.3, label_weight=0.5)
    real, fake = ([float(image.sum()) for image in images] for images in (REALS, FAKES))
    assert float(terms["reals"]) == pytest.approx(sum(s**2 for s in real) / 4)
    assert float(terms["fakes"]) == pytest.approx(0.3 * sum((s - 1) ** 2 for s in fake) / 4)
    entropy = 0.0
    for images in (REALS, FAKES):
        for image, label in zip(images.flatten(1)[:, :3].tolist(), LABELS.argmax(1).tolist(), strict=True):
            entropy += (math.log(sum(math.exp(logit) for logit in image)) - image[label]) / 4
    assert float(terms["labels"]) == pytest.approx(0.5 * entropy)
    assert toy.calls == [(8, 2)]
    assert set(lsgan_d(toy, REALS, FAKES)) == {"reals", "fakes"}


def test_lsgans_g_wants_0_of_its_images() -> None:
    terms = lsgan_g(Toy(), FAKES, LABELS, label_weight=2.0)
    assert float(terms["generator"]) == pytest.approx(sum(float(image.sum()) ** 2 for image in FAKES) / 4)
    plain = float(lsgan_g(Toy(), FAKES, LABELS)["generator_labels"])
    assert float(terms["generator_labels"]) == pytest.approx(2 * plain)


def test_noise_begins_where_d_wins() -> None:
    for d, strength in ((-3.0, 0.0), (0.5, 0.0), (0.6, 0.002), (1.0, 0.05), (1.5, 0.2)):
        assert float(lsgan_noise(torch.tensor(d))) == pytest.approx(strength, abs=1e-8)
    assert float(lsgan_noise(torch.tensor(1.5), 0.7)) == pytest.approx(0.7)


def test_noise_multiplies_each_map_of_each_image_by_one_number() -> None:
    x = draw(3, 7, 2, 2)
    normal = draw(3, 7, seed=4)
    noise = ChannelNoise(torch.tensor(0.1), normal)
    for maps in (slice(0, 5), slice(5, 7)):  # each call takes the next
        wanted = np.empty(x[:, maps].shape)
        for i in range(3):
            for c, n in enumerate(normal[i, maps].tolist()):
                wanted[i, c] = x[i, maps][c].double().numpy() * (1 + n * 0.1 * math.sqrt(len(normal[i, maps])))
        assert np.allclose(noise(x[:, maps]).numpy(), wanted, atol=1e-6)


def test_ds_noise_comes_before_each_convolution_and_the_dense_layer_at_4x4() -> None:
    seen: list[tuple[int, ...]] = []

    def noise(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape[1:]))
        return x

    d = Discriminator(D)
    plain = d(draw(2, 3, 16, 16))[0]
    assert torch.equal(d(draw(2, 3, 16, 16), noise=noise)[0], plain)  # type: ignore[arg-type]
    assert seen == [(8, 16, 16), (8, 16, 16), (16, 8, 8), (16, 8, 8), (17, 4, 4), (16, 4, 4)]
    assert d.noise_maps(16) == [maps for maps, _, _ in seen]
