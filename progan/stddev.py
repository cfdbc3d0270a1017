"""Minibatch standard deviation with derivatives of both orders (paper section 3)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from progan.pull_back import Pullbacks


def minibatch_stddev(x: Tensor, group: int, sets: int = 1, back: Pullbacks | None = None) -> Tensor:
    """Append one map that says how much the images of a group differ (paper section 3).

    x: [N, C, H, W]; group: images per group; sets: the batch is this many independent sets of N / sets images, one
    after the other, and no group mixes two of them. Image i of M groups goes with i + M, i + 2M, ...; where `group`
    does not divide the set, the first groups have one image more, and a set smaller than `group` is one group.
    back: gets how a gradient comes back through it. Returns [N, C + 1, H, W].
    """
    out, normed = with_stddev(x.float(), sets, group)

    def pull_back(grad: Tensor) -> Tensor:
        last = len(grad) * sets // len(x)
        return stddev_gradient(grad, x[-len(grad) :], [each[-last:] for each in normed])

    if back is not None:
        back.append(pull_back)
    return out.to(x.dtype)


def with_stddev(x: Tensor, sets: int, group: int) -> tuple[Tensor, list[Tensor]]:
    """`minibatch_stddev` of float32 or float64, and what `stddev_gradient` needs: (x - mean) / std and std, or twice
    both where the groups are of two sizes, each [S, G, M, HW, C] or with 1 in place of G.
    """
    out, *normed = _WithStddev.apply(x, sets, group)
    return out, normed


def stddev_gradient(grad: Tensor, x: Tensor, normed: Sequence[Tensor]) -> Tensor:
    """The gradient of x of that of `with_stddev`'s result; of the last sets alone if these are the last sets' images.

    grad: [N, C + 1, H, W]; x: [N, C, H, W]; normed: as `with_stddev` gave it.
    """
    out: Tensor = _StddevGradient.apply(grad, x, normed)
    return out


class _WithStddev(torch.autograd.Function):
    """The map is the standard deviation of each number over the group, as a mean over all numbers of an image."""

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
        return stddev_gradient(grad, x, normed), None, None


class _StddevGradient(torch.autograd.Function):
    """Of a map's gradient, each image gets the sum over its group, along its own distance from the group's mean."""

    @staticmethod
    def forward(grad: Tensor, x: Tensor, normed: Sequence[Tensor]) -> Tensor:
        units = normed[::2]
        images, maps = _like(grad[:, :-1], units), _like(grad[:, -1:], units)
        parts = [
            torch.addcmul(image, unit, each.sum((1, 3, 4), keepdim=True), value=1 / _numbers(unit))
            for image, each, unit in zip(images, maps, units, strict=True)
        ]
        return _ungrouped(parts, *x.shape[2:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Sequence[Tensor]], output: Tensor) -> None:
        grad, _, ctx.normed = inputs
        ctx.save_for_backward(grad)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (first,) = ctx.saved_tensors
        h, w = grad.shape[2:]
        maps, found = [], []
        units, stds = ctx.normed[::2], ctx.normed[1::2]
        parts = zip(_like(grad, units), _like(first[:, -1:], units), units, stds, strict=True)
        for part, of_map, unit, std in parts:
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


def _like(x: Tensor, units: Sequence[Tensor]) -> list[Tensor]:
    """Images by the same groups as those of `units`."""
    return _grouped(x, len(units[0]), sum(unit.shape[2] for unit in units))


def _ungrouped(parts: Sequence[Tensor], h: int, w: int) -> Tensor:
    """What `_grouped` did, undone: [N, C, H, W], channels last."""
    y = parts[0].flatten(1, 2)
    if len(parts) == 2:
        rows, last = torch.cat([parts[0][:, :-1], parts[1]], dim=2), parts[0][:, -1]
        y = torch.cat([rows.flatten(1, 2), last], dim=1)
    return y.flatten(0, 1).unflatten(1, (h, w)).permute(0, 3, 1, 2)
