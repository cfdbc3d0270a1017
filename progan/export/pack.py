"""A plan as a browser reads it: what the layers are, and their weights as half floats in the order of a shader."""

import base64
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from progan.export.plan import Activation, Conv, Dense, PixelNorm, Plan, ToRgb, UpConv


def page_layers(p: Plan) -> list[dict[str, Any]]:
    """What progan/export/page/network.js reads: a layer for each product, with the activation and the norm after it."""
    layers: list[dict[str, Any]] = []
    resolution = 2
    for op in p.operations:
        match op:
            case Dense() | UpConv():
                resolution *= 2
                layers.append(_layer("dense" if isinstance(op, Dense) else "up", op, resolution))
            case Conv():
                layers.append(_layer("conv", op, resolution))
            case ToRgb():
                layers.append(_layer("rgb", op, resolution))
            case Activation(slope):
                layers[-1]["slope"] = slope
            case PixelNorm() if layers:
                layers[-1]["norm"] = True
    return layers


def page_weights(p: Plan) -> str:
    """Weight and bias of every layer in turn, as base64 of little-endian half floats.

    A weight lies as [groups of 4 outputs][taps][inputs, to a multiple of 4][4 outputs], what is missing is 0.
    """
    parts: list[np.ndarray] = []
    for op in p.operations:
        if not isinstance(op, PixelNorm | Activation):
            weight = _taps(op)  # [O, T, I]
            outputs, inputs = -len(weight) % 4, -weight.shape[2] % 4
            weight = F.pad(weight, (0, inputs, 0, 0, 0, outputs))
            weight = weight.unflatten(0, (-1, 4)).permute(0, 2, 3, 1)  # [O / 4, T, I, 4]
            parts += [weight.numpy().ravel(), F.pad(op.bias, (0, outputs)).numpy()]
    values = np.concatenate(parts)
    if not np.abs(values).max() <= np.finfo("f2").max:
        raise ValueError("its weights are no numbers, or larger than the 65,504 that a page holds")
    return base64.b64encode(values.astype("<f2").tobytes()).decode()


def page_bytes(p: Plan) -> int:
    """How long `page_weights` is, nearly."""
    count = sum(_taps(op).numel() for op in p.operations if not isinstance(op, PixelNorm | Activation))
    return count * 2 * 4 // 3


def _layer(kind: str, op: Dense | Conv | UpConv | ToRgb, resolution: int) -> dict[str, Any]:
    outputs, _, inputs = _taps(op).shape
    return {
        "kind": kind, "inputs": inputs, "outputs": outputs, "resolution": resolution, "slope": None, "norm": False
    }  # fmt: skip


def _taps(op: Dense | Conv | UpConv | ToRgb) -> Tensor:
    """The weight as [outputs, taps, inputs]: taps are the pixels of a kernel, of a dense layer those of its maps."""
    match op:
        case Dense(weight):
            return weight.unflatten(0, (-1, 16))
        case UpConv(weight):
            return weight.permute(1, 2, 3, 0).flatten(1, 2)
        case Conv(weight) | ToRgb(_, weight):
            return weight.permute(0, 2, 3, 1).flatten(1, 2)
