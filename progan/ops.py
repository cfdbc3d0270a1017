"""Convolution and leaky ReLU with quick derivatives of every order, for the gradient penalty needs the second."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from progan.support.weight_gradients import products_are_quicker, weight_gradient_by_products

_weight_gradients = True


@contextmanager
def no_weight_gradients() -> Iterator[None]:
    """Inside, backward passes compute no gradients of a convolution's weights and biases: nobody may ask for them.

    The penalty's first pass wants the images' gradient alone, and PyTorch tells a function only what may need a
    gradient some day, not what this pass leads on to. It holds for the whole process: backward passes have threads of
    their own.
    """
    global _weight_gradients
    before, _weight_gradients = _weight_gradients, False
    try:
        yield
    finally:
        _weight_gradients = before


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, transposed: bool) -> Tensor:
    """Convolution with padding (k - 1) // 2, or, transposed, the derivative of one with respect to its input.

    x: [N, I, H, W]; weight: [O, I, k, k], or [I, O, k, k] when transposed; bias: [O]; all of one dtype.
    Returns [N, O, H / stride, W / stride], or stride times the size when transposed.
    """
    out: Tensor = _Convolution.apply(x, weight, bias, stride, transposed)
    return out


class _Convolution(torch.autograd.Function):
    """Convolution, plain or transposed, whose derivatives of every order are convolutions again.

    PyTorch's own second derivative of a convolution computes the weight part with kernels as large as the image; the
    gradient penalty needs it in every step.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, transposed: bool) -> Tensor:
        pad = (weight.shape[-1] - 1) // 2
        return torch.ops.aten.convolution(x, weight, bias, [stride] * 2, [pad] * 2, [1, 1], transposed, [0, 0], 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, ctx.stride, ctx.transposed = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _Convolution.apply(grad, weight, None, ctx.stride, not ctx.transposed)
        if ctx.needs_input_grad[1] and _weight_gradients:
            large, small = (grad, x) if ctx.transposed else (x, grad)
            grad_weight = _WeightGradient.apply(large, small, weight.shape, ctx.stride)
        if ctx.has_bias and ctx.needs_input_grad[2] and _weight_gradients:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


class _WeightGradient(torch.autograd.Function):
    """The weights' gradient of `small = convolution(large, weight)`: [N, I, H, W], [N, O, h, w] -> [O, I, k, k]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(large: Tensor, small: Tensor, shape: torch.Size, stride: int) -> Tensor:
        if products_are_quicker(large, shape):
            return weight_gradient_by_products(large, small, shape, stride)
        pad = (shape[-1] - 1) // 2
        weight = large.new_empty(1).expand(shape)  # only its shape is read
        return torch.ops.aten.convolution_backward(
            small, large, weight, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
        )[1]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        large, small, _, ctx.stride = inputs
        ctx.save_for_backward(large, small)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        large, small = ctx.saved_tensors
        grad_large = grad_small = None
        if ctx.needs_input_grad[0]:
            grad_large = _Convolution.apply(small, grad, None, ctx.stride, True)
        if ctx.needs_input_grad[1]:
            grad_small = _Convolution.apply(large, grad, None, ctx.stride, False)
        return grad_large, grad_small, None, None


class _LeakyReLU(torch.autograd.Function):
    """Leaky ReLU in place, whose second derivative is known to be nothing, not a tensor of zeros to carry along.

    What it saves is its result, which the next layer saves too: half the memory of a network in training.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.leaky_relu_(x, 0.2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_dirty(*inputs)
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _LeakyReLUGradient.apply(grad, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        """Any shape will do, so a batch of them too."""
        return _LeakyReLU.apply(x), in_dims[0]


class _LeakyReLUGradient(torch.autograd.Function):
    """Linear in the gradient, so its own derivative is itself; the sign of the result y is a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, y: Tensor) -> Tensor:
        return torch.ops.aten.leaky_relu_backward(grad, y, 0.2, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _LeakyReLUGradient.apply(grad, *ctx.saved_tensors), None


def leaky_relu_(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2 (appendix A.1) in place, any shape; differentiable twice.

    x must not be needed any more: not a leaf that wants a gradient, nor saved by what made it.
    """
    return _LeakyReLU.apply(x)
