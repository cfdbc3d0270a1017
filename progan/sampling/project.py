"""The latent whose image comes nearest to a given picture.

A quasi-Newton descent from the best of many random latents, over the picture's pyramid in the generator's own stages,
coarse to fine, as it grew: each stage goes on with the better half of the latents, the last with the best.
"""

from collections import deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progan.config import GeneratorConfig
from progan.images import box_down, to_float
from progan.networks import Generator, check_stage
from progan.sampling.images import one_hot, sample
from progan.support.rng import latents

KEPT = 16  # latents of each picture at 4x4
RANKED_AT = 16  # pixels at which the random latents are compared with the picture
MEMORY = 40  # steps from which the descent learns how the loss curves; with 20, twice the distance is left
LONGEST_STEP = 0.3  # of the latent's own length
VALUES_AT_ONCE = 2**25  # of all feature maps of a batch, which takes around 1 GB


@dataclass(frozen=True)
class Projection:
    """What was found for N pictures.

    z: float32 [N, z_dim], on the CPU; classes: of each, all 0 for a network without labels; images: theirs, uint8
    [N, C, R, R]; distances: to the pictures, float64 [N]; start_distances: of the best random latents.
    """

    z: Tensor
    classes: Tensor
    images: np.ndarray
    distances: np.ndarray
    start_distances: np.ndarray


def distance(images: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Root mean square of the differences of all pixels and channels, 0 to 255: uint8 [N, C, R, R] -> float64 [N]."""
    result: np.ndarray = np.square(images.astype(np.float64) - pictures).mean(axis=(1, 2, 3)) ** 0.5
    return result


def project(
    g: Generator,
    pictures: np.ndarray,
    *,
    resolution: int | None = None,
    alpha: float = 1.0,
    label: int | None = None,
    starts: int = 1024,
    steps: int = 300,
    seed: int = 0,
    progress: Callable[[float], object] = lambda share: None,
) -> Projection:
    """The latents whose images at this stage come nearest to `pictures`, uint8 [N, C, R, R]; each is found on its own.

    starts: random latents to choose from, of each class in turn, or all of the class `label`; never fewer than classes.
    steps: of the last stage; each stage before takes an eighth. seed: decides the random latents. progress: is given
    the share of the work done since the last time. Raises ConfigError for a stage that the network does not have.
    """
    resolution = check_stage(g.config, resolution, alpha)
    how: dict[str, Any] = {"resolution": resolution, "alpha": alpha}
    label_dim = g.config.label_dim
    z = latents(seed, "project", 0, max(starts, label_dim), g.config.z_dim)
    classes = torch.arange(len(z)) % max(1, label_dim) if label is None else torch.full((len(z),), label)
    fitted, drawn = fit_stages(g, z, one_hot(classes.tolist(), label_dim), **how)
    target = to_float(torch.from_numpy(pictures)).to(drawn.device)
    targets = {resolution: target}
    while target.shape[-1] > 4:
        target = box_down(target)
        targets[target.shape[-1]] = target
    stages = [
        _Stage(g, r, alpha, steps, 1) if r == resolution else _Stage(fitted, r, 1.0, -(-steps // 8), max(1, KEPT >> i))
        for i, r in enumerate(sorted(targets))
    ]
    coarse = targets[drawn.shape[-1]].flatten(1)
    apart = torch.cdist(coarse, drawn.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")  # [N, starts]
    chosen = apart.topk(min(stages[0].keep, len(z)), largest=False).indices.cpu()  # [N, kept]
    z, classes = z[chosen], classes[chosen]  # [N, kept, z_dim], [N, kept]
    nearest = sample(g, z[:, 0], one_hot(classes[:, 0].tolist(), label_dim), **how)
    work = len(pictures) * sum(stage.work for stage in stages)
    found = []
    for some in torch.arange(len(pictures)).split(_pictures_at_once(g.config, stages)):
        some_z, some_classes = z[some].to(drawn.device), classes[some]
        for stage in stages:
            of = targets[stage.resolution][some.to(drawn.device)]
            some_z, some_classes = _descend(stage, of, some_z, some_classes, lambda done: progress(done / work))
        found.append((some_z[:, 0].cpu(), some_classes[:, 0]))
    z, classes = (torch.cat(parts) for parts in zip(*found, strict=True))
    images = sample(g, z, one_hot(classes.tolist(), label_dim), **how)
    return Projection(z, classes, images, distance(images, pictures), distance(nearest, pictures))


@torch.no_grad()
def fit_stages(
    g: Generator, z: Tensor, labels: Tensor | None, *, resolution: int, alpha: float
) -> tuple[Generator, Tensor]:
    """A copy of the generator whose earlier stages show its images of this stage, as small as they are.

    An earlier `to_rgb` has stood still since its stage was over, while all blocks learned on: its images are none any
    more. Here it is the least squares fit from its block's features to the images of this stage, halved by boxes.
    z: [N, z_dim] and labels to fit on. Also returns their images at 16x16 or this stage, clipped: [N, C, r, r].
    """
    device = next(g.parameters()).device
    features: dict[int, Tensor] = {}
    earlier = [r for r in g.config.resolutions if r < resolution]
    hooks = [g.blocks[str(r)].register_forward_hook(lambda _, __, x, r=r: features.__setitem__(r, x)) for r in earlier]
    squares: dict[int, Tensor] = {}
    products: dict[int, Tensor] = {}
    drawn = []
    tanh = g.config.output == "tanh"
    try:
        for some in torch.arange(len(z)).split(max(1, min(64, 2**22 // resolution**2))):
            y = None if labels is None else labels[some].to(device)
            images = g(z[some].to(device), y, resolution=resolution, alpha=alpha).clamp(-1, 1)
            for r in [resolution, *reversed(earlier)]:
                images = images if r == resolution else box_down(images)
                if r == min(RANKED_AT, resolution):
                    drawn.append(images)
                if r == resolution:
                    continue
                x = features[r].permute(0, 2, 3, 1).flatten(0, 2).cpu().double()  # [N r r, maps]
                x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
                wanted = images.permute(0, 2, 3, 1).flatten(0, 2).cpu().double()  # [N r r, C]
                wanted = wanted.clamp(-0.99, 0.99).atanh() if tanh else wanted
                squares[r] = squares.get(r, 0.0) + x.T @ x
                products[r] = products.get(r, 0.0) + x.T @ wanted
    finally:
        for hook in hooks:
            hook.remove()
    fitted = deepcopy(g)
    for r in earlier:
        ridge = 1e-6 * squares[r].diagonal().mean() * torch.eye(len(squares[r]))
        weights = torch.linalg.solve(squares[r] + ridge, products[r]).T  # [C, maps + 1]
        to_rgb: Any = fitted.to_rgb[str(r)]
        to_rgb.weight.copy_((weights[:, :-1] / to_rgb.scale)[..., None, None])
        to_rgb.bias.copy_(weights[:, -1])
    return fitted, torch.cat(drawn)


def mismatch(images: Tensor, targets: Tensor) -> Tensor:
    """Mean squared difference in [-1, 1]: [N, C, R, R] -> [N]. Beyond white is white, and beyond black is black."""
    same = images.clamp(-1, 1) == targets
    return torch.where(same, 0.0, images - targets).square().mean(dim=(1, 2, 3))


def minimise(loss: Callable[[Tensor], Tensor], x: Tensor, steps: int) -> Tensor:
    """Go down from every row of x, [N, D], by L-BFGS, each on its own: `steps` evaluations of loss and gradient.

    loss: [N, D] -> [N]. A step that does not lower a row's loss is not taken, and shortened the next time.
    """
    value, grad = _evaluate(loss, x)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
    scale = 0.1 * _norm(x) / _norm(grad).clamp_min(1e-20)
    direction, share = -scale * grad, torch.ones_like(value)
    for _ in range(steps):
        share = torch.minimum(share, LONGEST_STEP * _norm(x) / _norm(direction).clamp_min(1e-20))
        step = share * direction
        slope = _dot(direction, grad)
        new_value, new_grad = _evaluate(loss, x + step)
        taken = new_value <= value + 1e-4 * share * slope
        change = new_grad - grad
        curve = _dot(step, change)
        usable = taken & (curve > 1e-10 * _dot(change, change))
        inverse = torch.where(usable, 1 / curve, 0.0)
        pairs.append((torch.where(usable, step, 0.0), torch.where(usable, change, 0.0), inverse))
        scale = torch.where(usable, curve / _dot(change, change).clamp_min(1e-30), scale)
        # Where the step was too long, to the bottom of the parabola through what is known.
        bottom = -slope * share**2 / (2 * (new_value - value - share * slope))
        shorter = torch.maximum(torch.minimum(bottom.nan_to_num(0.0), 0.5 * share), 0.1 * share)
        x = torch.where(taken, x + step, x)
        value = torch.where(taken, new_value, value)
        grad = torch.where(taken, new_grad, grad)
        direction = torch.where(taken, -_newton(grad, pairs, scale), direction)
        share = torch.where(taken, 1.0, shorter)
    return x


@dataclass(frozen=True)
class _Stage:
    g: Generator
    resolution: int
    alpha: float
    steps: int
    keep: int  # latents of each picture

    @property
    def work(self) -> int:
        """In pixels that are drawn, for each picture."""
        return self.keep * (self.steps + 1) * self.resolution**2


def _descend(
    stage: _Stage, target: Tensor, z: Tensor, classes: Tensor, progress: Callable[[int], object]
) -> tuple[Tensor, Tensor]:
    """The best of the latents [N, kept, z_dim] with their classes [N, kept], and down from there; the same of those.

    target: [N, C, r, r], of this stage.
    """

    def losses(rows: Tensor) -> Tensor:
        y = one_hot(classes.flatten().tolist(), stage.g.config.label_dim)
        y = None if y is None else y.to(rows.device)
        images = stage.g(rows, y, resolution=stage.resolution, alpha=stage.alpha)
        if rows.requires_grad:
            progress(len(rows) * stage.resolution**2)
        return mismatch(images, target.repeat_interleave(len(rows) // len(target), dim=0))

    if z.shape[1] > stage.keep:
        with torch.no_grad():
            now = losses(z.flatten(0, 1)).view(z.shape[:2])
        best = now.topk(stage.keep, largest=False).indices  # [N, keep]
        z, classes = z.gather(1, best[..., None].expand(-1, -1, z.shape[2])), classes.gather(1, best.cpu())
    return minimise(losses, z.flatten(0, 1), stage.steps).view(z.shape), classes


def _pictures_at_once(config: GeneratorConfig, stages: list[_Stage]) -> int:
    values = 0
    largest = 1
    for stage in stages:
        values += stage.resolution**2 * config.fmaps_at(stage.resolution)  # of one image, in all blocks so far
        largest = max(largest, stage.keep * values)
    return max(1, VALUES_AT_ONCE // largest)


def _evaluate(loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each row, [N, 1], and its gradient, [N, D]."""
    x = x.detach().requires_grad_(True)
    value = loss(x)
    (grad,) = torch.autograd.grad(value.sum(), x)
    return value.detach()[:, None], grad


def _newton(grad: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]], scale: Tensor) -> Tensor:
    """The gradient, [N, D], over the curvature that the pairs of step and change of gradient tell (two-loop recursion).

    pairs: of step [N, D], change [N, D] and 1 / their product [N, 1], zeros for a row that tells nothing.
    """
    shares = []
    for step, change, inverse in reversed(pairs):
        shares.append(inverse * _dot(step, grad))
        grad = grad - shares[-1] * change
    result = scale * grad
    for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        result = result + step * (share - inverse * _dot(change, result))
    return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)


def _norm(x: Tensor) -> Tensor:
    return x.norm(dim=1, keepdim=True)
