"""Counting the work of convolutions and matrix products."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class CountFlops(TorchDispatchMode):
    """Floating-point operations, two for a multiply and its addition, of what runs inside it, backward passes too."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func._overloadpacket
        if operation is torch.ops.aten.addmm_:
            operation = torch.ops.aten.addmm
        if count := flop_registry.get(operation):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out
