"""Weights made ready for the passes of one update: scaled at run time (paper 4.1), cast, and laid out, once for all."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from progan.support.device import autocast_dtype

Kernel = tuple[Tensor, Tensor | None]
_shared: ContextVar["_Shared | None"] = ContextVar("shared kernels", default=None)


class _Shared:
    """Tensors of layers times their scales, biases in autocast's dtype, and the kernels made of both."""

    def __init__(self) -> None:
        self.scaled: dict[nn.Module, Tensor] = {}
        self.biases: dict[nn.Module, Tensor] = {}
        self.kernels: dict[nn.Module, Kernel] = {}


class Equalized(nn.Module):
    """A layer whose weights are scaled at run time, by one number (paper 4.1)."""

    scale: float
    weight: nn.Parameter
    bias: nn.Parameter | None

    @property
    def to_scale(self) -> Tensor:
        """What the scale multiplies."""
        return self.weight

    def prepare(self, scaled: Tensor, bias: Tensor | None) -> Kernel:
        """The kernel and the bias as the layer uses them, in autocast's dtype.

        scaled: `to_scale` times the scale; bias: the layer's, in any dtype.
        """
        raise NotImplementedError

    def pull_back(self, grad: Tensor) -> Tensor:
        """The layer's vector-Jacobian product: the gradient of what it was given, of that of its outputs."""
        raise NotImplementedError

    def kernel(self) -> Kernel:
        """What `prepare` makes; in `shared_kernels` it is made by the layer's first pass."""
        shared = _shared.get()
        if shared is None:
            return self.prepare(self.to_scale * self.scale, self.bias)
        if self not in shared.kernels:
            scaled = shared.scaled.get(self)
            scaled = self.to_scale * self.scale if scaled is None else scaled
            shared.kernels[self] = self.prepare(scaled, shared.biases.get(self, self.bias))
        return shared.kernels[self]


@contextmanager
def shared_kernels() -> Iterator[None]:
    """Inside, a layer's weights are made ready once for all its passes: scaled, spread, cast, laid out.

    The weights must stay as they are meanwhile, and one backward pass ends it: the passes share its graph.
    """
    token = _shared.set(_Shared())
    try:
        yield
    finally:
        _shared.reset(token)


def scale_together(parts: Sequence[nn.Module], exact: Sequence[nn.Module] = ()) -> None:
    """In `shared_kernels`, scale what the layers of these parts have to scale, all at once; elsewhere do nothing.

    Under autocast they are cast all at once, too; those of `exact` stay float32.
    """
    shared = _shared.get()
    if shared is None:
        return
    cast, kept = _equalized(parts), _equalized(exact)
    layers = cast + kept
    if layers[0] in shared.scaled:
        return
    scaled = _Scaled.apply([layer.scale for layer in layers], *(layer.to_scale for layer in layers))
    shared.scaled.update(zip(layers, scaled, strict=True))
    if dtype := autocast_dtype(scaled[0].device):
        kernels = [layer for layer in cast if layer.to_scale is layer.weight]  # others are made in float32
        biases = {layer: layer.bias for layer in cast if layer.bias is not None}
        found = _Cast.apply(dtype, *(shared.scaled[layer] for layer in kernels), *biases.values())
        shared.scaled.update(zip(kernels, found[: len(kernels)], strict=True))
        shared.biases.update(zip(biases, found[len(kernels) :], strict=True))


def _equalized(parts: Sequence[nn.Module]) -> list[Equalized]:
    return [layer for part in parts for layer in part.modules() if isinstance(layer, Equalized)]


class _Scaled(torch.autograd.Function):
    """Tensors times numbers in few kernels, and gradients that lie in memory as the tensors do."""

    @staticmethod
    def forward(ctx: Any, scales: Sequence[float], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.scales, ctx.strides = scales, [tensor.stride() for tensor in tensors]
        ctx.set_materialize_grads(False)
        return tuple(torch._foreach_mul(tensors, scales))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = _wanted(grads, ctx.needs_input_grad[1:])
        made = [grad.new_empty_strided(grad.shape, ctx.strides[i]) for i, grad in found.items()]
        torch._foreach_copy_(made, list(found.values()))
        torch._foreach_mul_(made, [ctx.scales[i] for i in found])
        return None, *map(dict(zip(found, made, strict=True)).get, range(len(grads)))


class _Cast(torch.autograd.Function):
    """Tensors in another dtype, and their gradients in their own, in one operation each."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        ctx.set_materialize_grads(False)
        return tuple(_copies(tensors, [dtype] * len(tensors)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = _wanted(grads, ctx.needs_input_grad[1:])
        made = _copies(list(found.values()), [ctx.dtypes[i] for i in found])
        return None, *map(dict(zip(found, made, strict=True)).get, range(len(grads)))


def _wanted(grads: Sequence[Tensor | None], needed: Sequence[bool]) -> dict[int, Tensor]:
    """The gradients that came and are asked for, by their places."""
    pairs = enumerate(zip(grads, needed, strict=True))
    return {i: grad for i, (grad, wanted) in pairs if wanted and grad is not None}


def _copies(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    made = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    torch._foreach_copy_(made, list(tensors))
    return made


def as_autocast(x: Tensor) -> Tensor:
    """x in the dtype that `autocast` multiplies in here, if it does."""
    return x.to(autocast_dtype(x.device) or x.dtype)
