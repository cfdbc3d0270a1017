"""Convolution and leaky ReLU: their derivatives against PyTorch's own, through torch.func, and in odd surroundings."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

from progan.ops import convolution, leaky_relu_
from progan.support import weight_gradients
from tests.devices import needs_float64

Convolution = Callable[..., Tensor]
CASES = [(stride, transposed) for stride in (1, 2) for transposed in (False, True)]


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, transposed: bool) -> Tensor:
    pad = (weight.shape[-1] - 1) // 2
    return (F.conv_transpose2d if transposed else F.conv2d)(x, weight, bias, stride, pad)


def inputs(
    stride: int, transposed: bool, maps: int = 3, device: torch.device | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    kernel = 3 if stride == 1 else 4
    shape = (2, maps, kernel, kernel) if not transposed else (maps, 2, kernel, kernel)
    x = torch.randn(4, maps, 8, 8, generator=generator, dtype=torch.float64)
    weight, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, (2,)))
    return x.to(device), weight.to(device), bias.to(device)


def penalty(convolve: Convolution, x: Tensor, weight: Tensor, bias: Tensor, **how: bool | int) -> Tensor:
    """Something that needs the second derivative, as the gradient penalty does."""
    slope = grad(lambda x: leaky_relu_(convolve(x, weight, bias, **how)).square().sum())(x)
    return (slope.square().sum((1, 2, 3)).sqrt() - 1).square().mean()


@pytest.mark.parametrize(("stride", "transposed"), CASES)
def test_torch_func_works_through_both_functions_to_the_second_order(
    stride: int, transposed: bool, device: torch.device
) -> None:
    needs_float64(device)
    how = {"stride": stride, "transposed": transposed}
    x, weight, bias = inputs(**how, device=device)
    ours, theirs = (grad(lambda w, c=c: penalty(c, x, w, bias, **how))(weight) for c in (convolution, plain))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("stride", "transposed"), CASES)
def test_each_images_own_gradient_by_vmap(stride: int, transposed: bool, device: torch.device) -> None:
    needs_float64(device)
    how = {"stride": stride, "transposed": transposed}
    x, weight, bias = inputs(**how, device=device)

    def loss(weight: Tensor, image: Tensor) -> Tensor:
        return leaky_relu_(convolution(image[None], weight, bias, **how)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(weight, x)
    torch.testing.assert_close(each, torch.stack([grad(loss)(weight, image) for image in x]))


@pytest.mark.parametrize("stride", [1, 2])
def test_products_of_patches_are_the_weight_gradient(monkeypatch: pytest.MonkeyPatch, stride: int) -> None:
    """Also on CPUs where oneDNN's is quicker, so that every machine tests what some machines use."""
    x, weight, bias = (value.float() for value in inputs(stride, False, maps=4))
    found = []
    for alone in (True, False):
        monkeypatch.setattr(weight_gradients, "_AVX2_ALONE", alone)
        monkeypatch.setattr(weight_gradients, "_MAPS", 2)
        loss = grad(lambda w: convolution(x, w, bias, stride=stride, transposed=False).square().sum())
        found.append(loss(weight))
        shape = weight.shape
        assert weight_gradients.products_are_quicker(x, shape) is alone
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
