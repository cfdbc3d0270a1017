"""What the official numbers leave open: constants, initial weights, number formats."""

from functools import partial
from math import sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.config import DiscriminatorConfig, GeneratorConfig
from progan.layers import EqualizedConv2d, EqualizedLinear, pixel_norm
from progan.losses import wgan_gp_d
from progan.networks import Discriminator, Generator
from progan.ops import leaky_relu_
from progan.stddev import minibatch_stddev
from progan.support.device import autocast

SMALL = {"resolution": 16, "fmap_base": 64, "fmap_max": 32}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layers(network: nn.Module) -> dict[str, EqualizedLinear | EqualizedConv2d]:
    return {name: m for name, m in network.named_modules() if isinstance(m, EqualizedLinear | EqualizedConv2d)}


def fan_in(layer: nn.Module) -> int:
    return int(layer.weight[0].numel())


@pytest.mark.parametrize("equalized", [True, False])
def test_gains_of_every_layer(equalized: bool) -> None:
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(**SMALL, equalized=equalized))
    d = Discriminator(DiscriminatorConfig(**SMALL, equalized=equalized))
    for network in (g, d):
        for name, layer in layers(network).items():
            gain = sqrt(2)
            if "to_rgb" in name or name == "head.dense1":
                gain = 1.0
            elif name == "blocks.4.dense":
                gain = sqrt(2) / 4
            std = gain / sqrt(fan_in(layer))
            assert layer.scale == pytest.approx(std if equalized else 1.0), name
            count = layer.weight.numel()
            wanted = 1.0 if equalized else std
            assert float(layer.weight.detach().std()) == pytest.approx(wanted, rel=3 / sqrt(count)), name
            assert not layer.bias.any(), name


def test_equalized_and_plain_networks_start_as_the_same_function() -> None:
    outputs = []
    for equalized in (True, False):
        torch.manual_seed(0)
        outputs.append(Generator(GeneratorConfig(**SMALL, equalized=equalized))(draw(2, 32)))
    assert torch.allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize("layer", [EqualizedLinear(8, 6), EqualizedConv2d(8, 6, 3)], ids=["dense", "conv"])
def test_the_weight_is_scaled_at_run_time_and_the_bias_never(layer: nn.Module) -> None:
    x = draw(2, 8) if isinstance(layer, EqualizedLinear) else draw(2, 8, 4, 4)
    shape = (1, 6) if x.ndim == 2 else (1, 6, 1, 1)
    scale = sqrt(2 / fan_in(layer))
    with torch.no_grad():
        bare = layer(x)
        operation = F.linear if x.ndim == 2 else partial(F.conv2d, padding=1)
        assert torch.allclose(bare, scale * operation(x, layer.weight), atol=1e-5)
        layer.bias.copy_(draw(6, seed=1))
        assert torch.allclose(layer(x) - bare, layer.bias.view(shape).expand_as(bare), atol=1e-5)


def test_pixels_of_a_map_share_the_dense_layers_bias() -> None:
    layer = EqualizedLinear(8, 3 * 16, pixels=16)
    assert layer.bias.shape == (3,)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
        y = layer(torch.zeros(2, 8)).view(2, 3, 4, 4)
    assert torch.equal(y, torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4))


def rms(x: Tensor) -> Tensor:
    return x.square().mean(dim=1).sqrt()


def test_pixel_norm_is_the_papers(device: torch.device) -> None:
    x = draw(2, 6, 3, 3) * 10
    slow = x.double() / (x.double().square().sum(1, keepdim=True) / 6 + 1e-8).sqrt()
    assert torch.allclose(pixel_norm(x.to(device)).cpu().double(), slow, atol=1e-6)
    assert torch.equal(pixel_norm(torch.zeros(1, 4, 2, 2)), torch.zeros(1, 4, 2, 2))
    assert rms(pixel_norm(torch.full((1, 4), 1e-4))).item() == pytest.approx(sqrt(0.5), rel=1e-5)  # 1e-8 beside 1e-8


@pytest.mark.parametrize("resolution", [4, 8, 16])
def test_pixel_norm_comes_after_both_activations_of_a_block(resolution: int) -> None:
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(**SMALL))
    block = g.blocks[str(resolution)]
    between: list[Tensor] = []
    block.conv1.register_forward_pre_hook(lambda module, inputs: between.append(inputs[0]))
    with torch.no_grad():
        x = (
            draw(2, 32)
            if resolution == 4
            else draw(2, g.config.fmaps_at(resolution // 2), resolution // 2, resolution // 2)
        )
        out = block(x)
    for y in (between[0], out):
        assert torch.allclose(
            rms(y), torch.ones(2, resolution, resolution), atol=1e-4
        )  # an activation after would shrink it
        negative, positive = float(-y.clamp(max=0).sum()), float(y.clamp(min=0).sum())
        assert 0 < negative < 0.5 * positive  # and one did come before: a fifth, where signs are even


def test_without_pixel_norm_there_is_none_but_the_latents() -> None:
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(**SMALL, norm="none"))
    with torch.no_grad():
        assert not torch.allclose(rms(g.blocks["4"](draw(2, 32))), torch.ones(2, 4, 4), atol=0.1)
        assert torch.allclose(g(draw(2, 32)), g(3 * draw(2, 32)), atol=1e-5)


def test_a_stddev_group_of_0_leaves_the_layer_out() -> None:
    d = Discriminator(DiscriminatorConfig(**SMALL, stddev_group=0))
    assert d.head.conv.weight.shape[1] == d.config.fmaps_at(4)
    images = draw(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(d(images)[0], torch.cat([d(image[None])[0] for image in images]), atol=1e-5)


def test_stddev_of_one_image_is_the_root_of_1e_8() -> None:
    assert torch.allclose(minibatch_stddev(draw(1, 3, 4, 4), 4)[:, 3], torch.tensor(1e-4))


def test_an_activation_is_kept_once_for_the_backward_pass() -> None:
    d = Discriminator(DiscriminatorConfig(**SMALL))
    images, kept = draw(4, 3, 16, 16), {}

    def keep(x: Tensor) -> Tensor:
        kept[x.data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        block = d.blocks["16"](leaky_relu_(d.from_rgb["16"](images)), lambda x: x, [])
    shape, outputs = (4, d.config.fmaps_at(16), 16, 16), block.shape
    assert sum(x.shape == shape for x in kept.values()) == 2  # of from_rgb and of the first convolution
    assert sum(x.shape == outputs for x in kept.values()) == 1


def test_leaky_relu_passes_second_derivatives_to_the_slopes() -> None:
    def penalty_gradients(activation: object) -> tuple[Tensor, ...]:
        weights = draw(6, 6).double().requires_grad_()
        x = draw(3, 6, seed=1).double().requires_grad_()
        score = (activation(activation(x @ weights) @ weights) ** 2).sum()  # type: ignore[operator]
        (slope,) = torch.autograd.grad(score, x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [weights, x])

    for ours, theirs in zip(
        penalty_gradients(leaky_relu_), penalty_gradients(partial(F.leaky_relu, negative_slope=0.2)), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-10)


def test_bf16_is_close_to_float32_and_scores_and_weights_stay_float32(device: torch.device) -> None:
    torch.manual_seed(0)
    g, d = Generator(GeneratorConfig(**SMALL)).to(device), Discriminator(DiscriminatorConfig(**SMALL)).to(device)
    reals, mix = draw(4, 3, 16, 16).clamp(-1, 1).to(device), torch.full((4, 1, 1, 1), 0.4, device=device)
    found = {}
    for precision in ("fp32", "bf16"):
        with autocast(precision, device):
            with torch.no_grad():
                fakes = g(draw(4, 32).to(device), alpha=0.5)
            terms = wgan_gp_d(partial(d, alpha=0.5), reals, fakes, mix)
        loss = torch.stack(list(terms.values())).sum()
        gradients = torch.autograd.grad(loss, list(d.parameters()), allow_unused=True)
        flat = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
        assert {fakes.dtype, loss.dtype, flat.dtype} == {torch.float32}
        found[precision] = (fakes, loss.detach()[None], flat)
    for name, exact, rough, tolerance in zip(
        ("images", "loss", "gradient"), found["fp32"], found["bf16"], (0.02, 0.02, 0.1), strict=True
    ):
        error = float((rough - exact).norm() / exact.norm())
        assert 0 < error < tolerance, (name, error)


@pytest.mark.parametrize("resample", ["up", "down"])
def test_a_first_call_without_gradients_leaves_later_ones_whole(resample: str) -> None:
    with torch.inference_mode():
        EqualizedConv2d(2, 2, 3, resample=resample)(torch.randn(1, 2, 4, 4))
    layer = EqualizedConv2d(2, 2, 3, resample=resample)
    layer(torch.randn(1, 2, 4, 4)).sum().backward()
    assert layer.weight.grad is not None
    assert set(layer.state_dict()) == {"weight", "bias"}  # the matrix is no weight


def test_scores_far_from_zero_are_told_apart_under_bf16() -> None:
    torch.manual_seed(0)
    d = Discriminator(DiscriminatorConfig(resolution=8, fmap_base=64, fmap_max=16))
    with torch.no_grad():
        d.head.dense1.bias.fill_(40.0)  # where bf16 has steps of 0.25
        with autocast("bf16", torch.device("cpu")):
            scores, _ = d(torch.randn(64, 3, 8, 8))
    assert (scores - 40).abs().max() < 20
    assert len(scores.unique()) == 64
