"""The weights' gradient of a convolution as matrix products, for CPUs on which oneDNN's own kernel is its slowest."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Such CPUs have AVX2 and no AVX512; there the products win unless the maps are few.
# The colour layers (1x1) keep to the products, with which the documented images were made: sums in another order would
# change them.
_AVX2_ALONE = torch.backends.cpu.get_cpu_capability() == "AVX2"
_MAPS = 32
_ROWS = 2048  # pixels per product: few enough that their patches stay in the cache


def products_are_quicker(large: Tensor, shape: torch.Size) -> bool:
    """Whether `weight_gradient_by_products` beats oneDNN. large: the convolution's input; shape: [O, I, k, k]."""
    quicker = _AVX2_ALONE and (min(shape[:2]) >= _MAPS or shape[-1] == 1)
    return quicker and large.device.type == "cpu" and large.dtype == torch.float32


def weight_gradient_by_products(large: Tensor, small: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """The weights' gradient of `small = convolution(large, weight)` as products of patches, a few pixels at a time.

    large: [N, I, H, W]; small: [N, O, h, w]; shape: [O, I, k, k], which the result has; padding (k - 1) // 2.
    """
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
