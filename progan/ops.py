"""What networks are made of, with quick derivatives: the gradient penalty needs the second, in every step."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

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


Grouped = tuple[Tensor, ...]


def with_stddev(x: Tensor, sets: int, group: int) -> tuple[Tensor, list[Grouped]]:
    """x with one map more, that says how much the images of a group differ (paper section 3): the standard deviation of
    each number over the group, as a mean over all numbers of an image.

    x: [N, C, H, W], float32, `sets` independent sets of N / sets images one after the other; a set has as many groups M
    as have `group` images or more, at least one, and image i goes with i + M, i + 2 M, ... Returns [N, C + 1, H, W],
    and what `stddev_gradient` needs: (x - mean) / std and std, by groups.
    """
    out, *normed = _WithStddev.apply(x, sets, group)
    return out, list(zip(normed[::2], normed[1::2], strict=True))


def stddev_gradient(grad: Tensor, x: Tensor, normed: Sequence[Grouped]) -> Tensor:
    """The gradient of x of that of `with_stddev`'s result; of the last sets alone if these are the last sets' images.

    grad: [N, C + 1, H, W]; x: [N, C, H, W]; normed: as `with_stddev` gave it.
    """
    out: Tensor = _StddevGradient.apply(grad, x, normed)
    return out


class _WithStddev(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, sets: int, group: int) -> tuple[Tensor, ...]:
        count = len(x) // sets
        normed, stds = [], []
        for images in _grouped(x, sets, max(1, count // group)):
            centred = images - images.mean(1, keepdim=True)
            # Biased: within the group only. (torch.var takes 20 times as long here, and a norm 50 times.)
            std = centred.square().mean(1, keepdim=True).add_(1e-8).sqrt_()
            normed += [centred.div_(std), std]
            stds.append(std.mean((3, 4), keepdim=True).expand(-1, images.shape[1], -1, -1, -1))
        maps = _ungrouped(stds, 1, 1).expand(-1, -1, *x.shape[2:])
        return torch.cat([x, maps], dim=1), *normed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        x, *normed = ctx.saved_tensors
        return stddev_gradient(grad, x, list(zip(normed[::2], normed[1::2], strict=True))), None, None


class _StddevGradient(torch.autograd.Function):
    """Of a map's gradient, each image gets the sum over its group, along its own distance from the group's mean."""

    @staticmethod
    def forward(grad: Tensor, x: Tensor, normed: Sequence[Grouped]) -> Tensor:
        images, maps = _like(grad[:, :-1], normed), _like(grad[:, -1:], normed)
        parts = [
            torch.addcmul(image, unit, each.sum((1, 3, 4), keepdim=True), value=1 / _numbers(unit))
            for image, each, (unit, _) in zip(images, maps, normed, strict=True)
        ]
        return _ungrouped(parts, *x.shape[2:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Sequence[Grouped]], output: Tensor) -> None:
        grad, _, ctx.normed = inputs
        ctx.save_for_backward(grad)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (first,) = ctx.saved_tensors
        h, w = grad.shape[2:]
        maps, found = [], []
        for part, of_map, (unit, std) in zip(
            _like(grad, ctx.normed), _like(first[:, -1:], ctx.normed), ctx.normed, strict=True
        ):
            scale = 1 / _numbers(unit)
            along = part * unit
            maps.append((along.sum((1, 3, 4), keepdim=True) * scale).expand(-1, unit.shape[1], -1, -1, -1))
            if ctx.needs_input_grad[1]:
                across = (part - part.mean(1, keepdim=True)).addcmul_(unit, along.mean(1, keepdim=True), value=-1)
                found.append(across.mul_(of_map.sum((1, 3, 4), keepdim=True) * scale / std))
        both = torch.cat([grad, _ungrouped(maps, 1, 1).expand(-1, -1, h, w)], dim=1)
        return both, _ungrouped(found, h, w) if found else None, None


def _numbers(images: Tensor) -> int:
    """How many numbers the images of a group have together."""
    return images[0, :, 0].numel()


def _grouped(x: Tensor, sets: int, groups: int) -> list[Tensor]:
    """Images [N, C, H, W] by their groups: [S, G, M, HW, C], as they lie in memory if they are channels last.

    Two of them where the M groups are not of one size: first those with one image more.
    """
    count = len(x) // sets
    y = x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (sets, count))  # [S, N/S, HW, C]
    rows, longer = divmod(count, groups)
    whole = y[:, : rows * groups].unflatten(1, (rows, groups))
    if not longer:
        return [whole]
    return [torch.cat([whole[:, :, :longer], y[:, None, rows * groups :]], dim=1), whole[:, :, longer:]]


def _like(x: Tensor, normed: Sequence[Grouped]) -> list[Tensor]:
    """Images by the same groups as those of `normed`."""
    return _grouped(x, len(normed[0][0]), sum(unit.shape[2] for unit, _ in normed))


def _ungrouped(parts: Sequence[Tensor], h: int, w: int) -> Tensor:
    """What `_grouped` did, undone: [N, C, H, W], channels last."""
    y = parts[0].flatten(1, 2)
    if len(parts) == 2:
        rows, last = torch.cat([parts[0][:, :-1], parts[1]], dim=2), parts[0][:, -1]
        y = torch.cat([rows.flatten(1, 2), last], dim=1)
    return y.flatten(0, 1).unflatten(1, (h, w)).permute(0, 3, 1, 2)
