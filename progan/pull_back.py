"""How a gradient comes back through a network, written out: what the gradient penalty differentiates (appendix A.1)."""

from collections.abc import Callable

import torch
from torch import Tensor

# How a gradient comes back through what was done, step by step: that of the result to that of the input, of the last
# images of a minibatch as well as of all. Differentiable itself. So the penalty asks for its images alone.
Back = list[Callable[[Tensor], Tensor]]


def pulled_back(back: Back, grad: Tensor) -> Tensor:
    """The gradient of what went in, of that of what came out, [N, ...]; of the last N images if there were more."""
    for step in reversed(back):
        grad = step(grad)
    return grad


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """How a gradient comes back through any function(x), which is done again for it. For a `Back`."""

    def pull_back(grad: Tensor) -> Tensor:
        with torch.enable_grad():
            last = x[-len(grad) :]
            last = last if last.requires_grad else last.requires_grad_()
            return torch.autograd.grad(function(last), last, grad, create_graph=True)[0]

    return pull_back
