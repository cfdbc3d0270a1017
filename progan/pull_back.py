"""Vector-Jacobian products written out layer by layer, for the gradient penalty (appendix A.1).

Autograd would take the score's gradient for all images that D saw at once; these take it for the last of them alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# What was done to a minibatch, as the VJPs of its steps in their order. Each takes the gradient of its step's result to
# that of its input, of all images or of the last ones, and can be differentiated again.
Pullbacks = list[Callable[[Tensor], Tensor]]


def pulled_back(back: Pullbacks, grad: Tensor) -> Tensor:
    """The gradient of what went in, [N, ...], of that of what came out, [N, ...]: of all images, or of the last N."""
    for step in reversed(back):
        grad = step(grad)
    return grad


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """The VJP of any function at x, [M, ...]: it is done again for the last N images, where there are N gradients."""

    def pull_back(grad: Tensor) -> Tensor:
        with torch.enable_grad():
            last = x[-len(grad) :]
            last = last if last.requires_grad else last.requires_grad_()
            return torch.autograd.grad(function(last), last, grad, create_graph=True)[0]

    return pull_back
