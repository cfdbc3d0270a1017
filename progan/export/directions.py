"""Directions in which a generator's pictures vary most: the principal components of its first features."""

from itertools import takewhile

import torch
from torch import Tensor

from progan.export.plan import Activation, Dense, PixelNorm, Plan, apply
from progan.support.rng import latents, seeded


@torch.no_grad()
def directions(p: Plan, count: int = 8, samples: int = 10_000) -> Tensor:
    """The latent directions of the `count` largest components, unit vectors: float32 [count, z_dim].

    The features are those of the first layer, [samples, C * 16], of latents drawn anew; where there are classes, what
    is common to a class is taken out. A direction is how the latent changes, on average, along a component. At most as
    many as the latent has numbers.
    """
    dim, classes = p.config.z_dim, p.config.label_dim
    count = min(count, dim)
    z = latents(0, "directions", 0, samples, dim)
    kinds = torch.arange(samples) % max(1, classes)
    x = torch.cat([z, torch.eye(classes)[kinds]], dim=1) if classes else z
    for op in takewhile(lambda op: isinstance(op, PixelNorm | Dense | Activation), p.operations):
        assert isinstance(op, PixelNorm | Dense | Activation)
        x = apply(op, x)
    features = x.flatten(1)
    for kind in range(max(1, classes)):
        features[kinds == kind] -= features[kinds == kind].mean(0)
    with seeded(0, "directions"):
        coordinates, _, _ = torch.pca_lowrank(features, q=min(2 * count, *features.shape), center=False)
    along = coordinates[:, :count].T @ z  # [count, z_dim]
    along = along / along.norm(dim=1, keepdim=True)
    largest = along.gather(1, along.abs().argmax(dim=1, keepdim=True))
    return along * largest.sign()  # a component has no sign of its own
