"""What networks are made of, with quick derivatives: the gradient penalty needs the second, in every step."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from progan.support.weight_gradients import products_are_quicker, weight_gradient_by_products


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
        for_x, for_weight = ctx.needs_input_grad[:2]
        for_bias = ctx.has_bias and ctx.needs_input_grad[2]
        large, small = (grad, x) if ctx.transposed else (x, grad)
        grad_x = grad_weight = grad_bias = None
        if for_x and for_weight and not torch.is_grad_enabled() and not products_are_quicker(large, weight.shape):
            # Nobody will differentiate these: all at once.
            wanted = [True, True, for_bias]
            return *_convolution_backward(grad, x, weight, ctx.stride, ctx.transposed, wanted), None, None
        if for_x:
            grad_x = _Convolution.apply(grad, weight, None, ctx.stride, not ctx.transposed)
        if for_weight:
            grad_weight, grad_bias = _WeightGradient.apply(
                large, small, weight.shape, ctx.stride, for_bias and not ctx.transposed
            )
        if for_bias and grad_bias is None:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, transposed: bool, wanted: list[bool]
) -> tuple[Tensor | None, ...]:
    """The wanted of the gradients of x, weight and bias."""
    pad = (weight.shape[-1] - 1) // 2
    bias = [grad.shape[1]] if wanted[2] else None
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, bias, [stride] * 2, [pad] * 2, [1, 1], transposed, [0, 0], 1, wanted
    )
    return tuple(each if want else None for each, want in zip(found, wanted, strict=True))


class _WeightGradient(torch.autograd.Function):
    """The weights' gradient of `small = convolution(large, weight)`: [N, I, H, W], [N, O, h, w] -> [O, I, k, k].

    And the bias's, [O], if it is wanted: libraries have it on the way.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        large: Tensor, small: Tensor, shape: torch.Size, stride: int, biased: bool
    ) -> tuple[Tensor, Tensor | None]:
        if products_are_quicker(large, shape):
            sums = small.sum((0, 2, 3)) if biased else None
            return weight_gradient_by_products(large, small, shape, stride), sums
        weight = large.new_empty(1).expand(shape)  # only its shape is read
        _, out, sums = _convolution_backward(small, large, weight, stride, False, [False, True, biased])
        assert out is not None
        return out, sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor | None]) -> None:
        large, small, _, ctx.stride, _ = inputs
        ctx.save_for_backward(large, small)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_sums: Tensor | None) -> tuple[Tensor | None, ...]:
        large, small = ctx.saved_tensors
        grad_large = grad_small = None
        if ctx.needs_input_grad[0] and grad is not None:
            grad_large = _Convolution.apply(small, grad, None, ctx.stride, True)
        if ctx.needs_input_grad[1]:
            if grad is not None:
                grad_small = _Convolution.apply(large, grad, grad_sums, ctx.stride, False)
            elif grad_sums is not None:
                grad_small = grad_sums.view(1, -1, 1, 1).expand_as(small)
        return grad_large, grad_small, None, None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias. x: [N, I]; weight: [O, I]; bias: [O]; all of one dtype. Returns [N, O]."""
    out: Tensor = _Linear.apply(x, weight, bias)
    return out


class _Linear(torch.autograd.Function):
    """Whose derivatives are of its kind again, and which passes nothing on where nothing comes.

    PyTorch's own goes on with zeros there: the penalty's second pass reaches the dense layers from one side alone.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _Linear.apply(grad, weight.t(), None)
        if ctx.needs_input_grad[1]:
            grad_weight = _Linear.apply(grad.t(), x.t(), None)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)
        return grad_x, grad_weight, grad_bias


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


class _UnitRms(torch.autograd.Function):
    """x / RMS(x) over the maps, and 1 / RMS(x), whose derivative is four kernels and keeps these two results alone.

    The first of them is what the next layer keeps too; x is not needed any more.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        square = torch.linalg.vector_norm(x, dim=1, keepdim=True).square_()
        factor = torch.rsub(square, eps, alpha=-1 / x.shape[1]).rsqrt_()  # of eps + square / C: [N, 1, ...]
        return x * factor, factor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_factor: Tensor | None) -> tuple[Tensor | None, None]:
        y, factor = ctx.saved_tensors
        grad_x = None
        if grad is not None:
            grad_x = torch.addcmul(grad, y, (grad * y).mean(dim=1, keepdim=True), value=-1) * factor
        if grad_factor is not None:
            through = y * (grad_factor * factor.square() / -y.shape[1])
            grad_x = through if grad_x is None else grad_x + through
        return grad_x, None


def unit_rms(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps), the mean over dimension 1 (paper 4.2). x: [N, C, ...]; returns the same shape."""
    out: Tensor = _UnitRms.apply(x, eps)[0]
    return out


def leaky_relu_gradient(grad: Tensor, y: Tensor) -> Tensor:
    """The gradient of leaky ReLU's input, of that of its result y; both and the result of one shape."""
    return _LeakyReLUGradient.apply(grad, y)
