"""Convolution and leaky ReLU with quick derivatives of every order, for the gradient penalty needs the second."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


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

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.transposed, ctx.has_bias = stride, transposed, bias is not None
        pad = (weight.shape[-1] - 1) // 2
        return torch.ops.aten.convolution(x, weight, bias, [stride] * 2, [pad] * 2, [1, 1], transposed, [0, 0], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _Convolution.apply(grad, weight, None, ctx.stride, not ctx.transposed)
        if ctx.needs_input_grad[1] and _wanted(ctx, 1):
            large, small = (grad, x) if ctx.transposed else (x, grad)
            grad_weight = _WeightGradient.apply(large, small, weight.shape, ctx.stride)
        if ctx.has_bias and ctx.needs_input_grad[2] and _wanted(ctx, 2):
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


def _wanted(ctx: Any, index: int) -> bool:
    """Whether the backward pass under way leads on to this input; the penalty's first pass wants only the images."""
    return torch._C._will_engine_execute_node(ctx.next_functions[index][0])


class _WeightGradient(torch.autograd.Function):
    """The weights' gradient of `small = convolution(large, weight)`: [N, I, H, W], [N, O, h, w] -> [O, I, k, k]."""

    @staticmethod
    def forward(ctx: Any, large: Tensor, small: Tensor, shape: torch.Size, stride: int) -> Tensor:
        ctx.save_for_backward(large, small)
        ctx.stride = stride
        quicker = _AVX2_ALONE and (min(shape[:2]) >= _MAPS or shape[-1] == 1)
        if quicker and large.device.type == "cpu" and large.dtype == torch.float32:
            return _weight_gradient_by_products(large, small, shape, stride)
        pad = (shape[-1] - 1) // 2
        weight = large.new_empty(1).expand(shape)  # only its shape is read
        return torch.ops.aten.convolution_backward(
            small, large, weight, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
        )[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        large, small = ctx.saved_tensors
        grad_large = grad_small = None
        if ctx.needs_input_grad[0]:
            grad_large = _Convolution.apply(small, grad, None, ctx.stride, True)
        if ctx.needs_input_grad[1]:
            grad_small = _Convolution.apply(large, grad, None, ctx.stride, False)
        return grad_large, grad_small, None, None


# On such CPUs this is the slowest of oneDNN's convolutions, and slower than matrix products unless the maps are few.
# The colour layers (1x1) keep to the products, with which the documented images were made: sums in another order would
# change them.
_AVX2_ALONE = torch.backends.cpu.get_cpu_capability() == "AVX2"
_MAPS = 32
_ROWS = 2048  # pixels per product: few enough that their patches stay in the cache


def _weight_gradient_by_products(large: Tensor, small: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """The same gradient as matrix products of patches, a few pixels at a time: faster on CPUs with AVX2."""
    (n, _, h, w), (o, i, k, _) = small.shape, shape
    pad = (k - 1) // 2
    x = F.pad(large.permute(0, 2, 3, 1), (0, 0, pad, pad, pad, pad)).contiguous()  # [N, H + 2 pad, W + 2 pad, I]
    step = x.stride()
    # A patch's rows lie whole in memory: k runs of k * I numbers.
    patches = x.as_strided((n, h, w, k, k * i), (step[0], stride * step[1], stride * step[2], step[1], 1))
    grads = small.permute(0, 2, 3, 1)  # [N, h, w, O]
    images, lines = max(1, _ROWS // (h * w)), min(h, max(1, _ROWS // w))
    out = large.new_zeros(k * k * i, o)
    for a in range(0, n, images):
        for b in range(0, h, lines):
            part = (slice(a, a + images), slice(b, b + lines))
            out.addmm_(patches[part].reshape(-1, k * k * i).t(), grads[part].reshape(-1, o))
    return out.view(k, k, i, o).permute(3, 2, 0, 1)


class _LeakyReLU(torch.autograd.Function):
    """Leaky ReLU in place, whose second derivative is known to be nothing, not a tensor of zeros to carry along.

    What it saves is its result, which the next layer saves too: half the memory of a network in training.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(F.leaky_relu_(x, 0.2))
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _LeakyReLUGradient.apply(grad, *ctx.saved_tensors)


class _LeakyReLUGradient(torch.autograd.Function):
    """Linear in the gradient, so its own derivative is itself; the sign of the result y is a constant."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return torch.ops.aten.leaky_relu_backward(grad, y, 0.2, True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _LeakyReLUGradient.apply(grad, *ctx.saved_tensors), None


def leaky_relu_(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2 (appendix A.1) in place, any shape; differentiable twice.

    x must not be needed any more: not a leaf that wants a gradient, nor saved by what made it.
    """
    return _LeakyReLU.apply(x)
