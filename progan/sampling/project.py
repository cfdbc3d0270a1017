"""The latent whose image comes nearest to a given picture.

A quasi-Newton descent from the best of many random latents, over the picture's pyramid, whose levels are the stages in
which the generator grew: 4x4 first, then each finer one with it, at last the pixels alone. The image that is compared
is always the full one, made smaller by boxes: an earlier stage's `to_rgb` has stood still since its stage was over,
while its block learned on, and what it shows is no image any more.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progan.images import box_down, to_float
from progan.networks import Generator, check_stage
from progan.sampling.images import one_hot, sample, sample_batches
from progan.support.arithmetic import number_format
from progan.support.rng import latents

KEPT = 8  # latents of each picture
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
    steps: at full size; a quarter more come before, coarse to fine. seed: decides the random latents. progress: is
    given the share of the work done since the last time. Raises ConfigError for a stage that the network does not have.
    """
    how: dict[str, Any] = {"resolution": check_stage(g.config, resolution, alpha), "alpha": alpha}
    device, label_dim = next(g.parameters()).device, g.config.label_dim
    z = latents(seed, "project", 0, max(starts, label_dim), g.config.z_dim)
    classes = torch.arange(len(z)) % max(1, label_dim) if label is None else torch.full((len(z),), label)
    targets = to_float(torch.from_numpy(pictures)).to(device)
    apart = _apart(targets, sample_batches(g, z, one_hot(classes.tolist(), label_dim), **how))  # [N, starts]
    chosen = apart.topk(min(KEPT, len(z)), largest=False).indices.cpu()  # [N, kept]
    z, classes = z[chosen], classes[chosen]  # [N, kept, z_dim], [N, kept]
    nearest = sample(g, z[:, 0], one_hot(classes[:, 0].tolist(), label_dim), **how)
    stages = plan(how["resolution"], steps, z.shape[1])
    work = len(pictures) * sum(stage.kept * (stage.steps + 1) for stage in stages)
    z = z.to(device)
    for stage in stages:
        z, classes = _descend(g, how, stage, targets, z, classes, lambda done: progress(done / work))
    z, classes = z[:, 0].cpu(), classes[:, 0]
    images = sample(g, z, one_hot(classes.tolist(), label_dim), **how)
    return Projection(z, classes, images, distance(images, pictures), distance(nearest, pictures))


@dataclass(frozen=True)
class Stage:
    """A part of the descent: the finest level that the loss looks at, latents that are kept of each picture, steps."""

    resolution: int
    kept: int
    steps: int


def plan(resolution: int, steps: int, kept: int) -> list[Stage]:
    """Coarse to fine with all latents, `steps` / 4 in all; then `steps` at full size, with fewer and fewer of them."""
    coarse = [4 << i for i in range((resolution // 4).bit_length() - 1)]
    stages = [Stage(r, kept, -(-steps // (4 * len(coarse)))) for r in coarse]
    return stages + [Stage(resolution, min(kept, k), -(-steps // part)) for k, part in ((8, 8), (4, 8), (2, 4), (1, 2))]


def mismatch(images: Tensor, targets: Tensor, resolution: int) -> Tensor:
    """Mean squared difference in [-1, 1], [N, C, R, R] -> [N]; beyond white is white, and beyond black is black.

    resolution: R for the pixels; below, the sum over the levels of the pyramid from there down to 4x4.
    """
    level = _coarse(torch.where(images.clamp(-1, 1) == targets, 0.0, images - targets), resolution)
    total = level.square().mean(dim=(1, 2, 3))
    while 4 < level.shape[-1] < images.shape[-1]:
        level = box_down(level)
        total = total + level.square().mean(dim=(1, 2, 3))
    return total


def minimise(evaluate: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Go down from every row of x, [N, D], by L-BFGS, each on its own; `steps` and one evaluations.

    evaluate: gives the loss of each row, [N], and its gradient, [N, D]. A step that does not lower a row's loss is not
    taken, and is shorter the next time. Returns the rows and their losses.
    """
    loss, grad = evaluate(x)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
    scale = 0.1 * _norm(x) / _norm(grad).clamp_min(1e-20)
    direction, share = -scale * grad, torch.ones_like(scale)
    for _ in range(steps):
        share = torch.minimum(share, LONGEST_STEP * _norm(x) / _norm(direction).clamp_min(1e-20))
        step = share * direction
        slope = _dot(direction, grad)
        new_loss, new_grad = evaluate(x + step)
        rise = (new_loss - loss)[:, None]
        taken = rise <= 1e-4 * share * slope
        change = new_grad - grad
        curve = _dot(step, change)
        usable = taken & (curve > 1e-10 * _dot(change, change))
        inverse = torch.where(usable, 1 / curve, 0.0)
        pairs.append((torch.where(usable, step, 0.0), torch.where(usable, change, 0.0), inverse))
        scale = torch.where(usable, curve / _dot(change, change).clamp_min(1e-30), scale)
        # Where the step was too long, to the bottom of the parabola through what is known.
        bottom = -slope * share**2 / (2 * (rise - share * slope))
        shorter = torch.maximum(torch.minimum(bottom.nan_to_num(0.0), 0.5 * share), 0.1 * share)
        x = torch.where(taken, x + step, x)
        loss = torch.where(taken[:, 0], new_loss, loss)
        grad = torch.where(taken, new_grad, grad)
        direction = torch.where(taken, -_newton(grad, pairs, scale), direction)
        share = torch.where(taken, 1.0, shorter)
    return x, loss


@torch.no_grad()
def _apart(targets: Tensor, images: Iterable[np.ndarray]) -> Tensor:
    """The distance of each target to each image, at 16x16 where they are larger: [N, M]."""
    few = _coarse(targets, RANKED_AT).flatten(1)
    some = [_coarse(to_float(torch.from_numpy(batch)).to(few.device), RANKED_AT).flatten(1) for batch in images]
    return torch.cdist(few, torch.cat(some), compute_mode="donot_use_mm_for_euclid_dist")


def _coarse(images: Tensor, resolution: int) -> Tensor:
    while images.shape[-1] > resolution:
        images = box_down(images)
    return images


def _descend(
    g: Generator,
    how: dict[str, Any],
    stage: Stage,
    targets: Tensor,
    z: Tensor,
    classes: Tensor,
    progress: Callable[[int], object],
) -> tuple[Tensor, Tensor]:
    """Down from the first of the latents [N, M, z_dim] and classes [N, M]; of those `stage.kept`, the best is first."""
    z, classes = z[:, : stage.kept], classes[:, : stage.kept]
    values = sum(r * r * g.config.fmaps_at(r) for r in g.config.resolutions if r <= how["resolution"])
    batch = max(1, VALUES_AT_ONCE // values)

    def evaluate(rows: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for some in torch.arange(len(rows)).split(batch):
            x = rows[some].requires_grad_(True)
            y = one_hot(classes.flatten()[some].tolist(), g.config.label_dim)
            with number_format("fp32"):
                images = g(x, None if y is None else y.to(x.device), **how)
                losses = mismatch(images, targets[some // stage.kept], stage.resolution)
                found.append((losses.detach(), *torch.autograd.grad(losses.sum(), x)))
            progress(len(x))
        losses, grads = (torch.cat(parts) for parts in zip(*found, strict=True))
        return losses, grads

    rows, losses = minimise(evaluate, z.flatten(0, 1), stage.steps)
    order = losses.view(z.shape[:2]).argsort(dim=1)  # [N, kept]
    z = rows.view(z.shape).gather(1, order[..., None].expand(z.shape))
    return z, classes.gather(1, order.cpu())


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
