"""The training losses as functions of a critic (appendix A.1 and B).

A critic is a discriminator at one moment of growing: critic(images, sets=n) -> (scores [N], logits [N, label_dim]).
Each loss is a dict of named differentiable terms: their sum is what to minimise, their names are the log.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from progan.pull_back import Pullbacks, pulled_back


class Critic(Protocol):
    """images: [N, C, R, R], `sets` independent minibatches one after the other. back: gets how a gradient [N, 1] of
    the scores, of all of them or of the last ones, comes back to the images."""

    def __call__(self, images: Tensor, *, sets: int = 1, back: Pullbacks | None = None) -> tuple[Tensor, Tensor]: ...


def wgan_gp_d(
    critic: Critic,
    reals: Tensor,
    fakes: Tensor,
    mix: Tensor,
    labels: Tensor | None = None,
    *,
    gp_weight: float = 10.0,
    gp_target: float = 1.0,
    drift: float = 0.001,
    label_weight: float = 1.0,
) -> dict[str, Tensor]:
    """D's loss: WGAN-GP with target and drift, and AC-GAN's label terms where there are labels (appendix A.1, B).

    reals, fakes: [N, C, R, R] in [-1, 1]; mix: uniform in [0, 1), [N, 1, 1, 1], the share of the fake in the image at
    which the gradient is taken; labels: one-hot [N, label_dim], of reals and fakes alike. gp_target: the wanted norm of
    the score's gradient over all pixels and channels of an image at this resolution. Returns float32 scalars.
    """
    back = Pullbacks()
    sets = [reals, fakes, *([torch.lerp(reals, fakes, mix)] if gp_weight else [])]
    scores, logits = critic(torch.cat(sets), sets=len(sets), back=back)
    real_scores, fake_scores, *mixed_scores = scores.chunk(len(sets))
    terms = {"wasserstein": fake_scores.mean() - real_scores.mean()}
    if drift:
        terms["drift"] = drift * F.mse_loss(real_scores, torch.zeros_like(real_scores))
    if gp_weight:
        norms = gradient_norms(back, *mixed_scores)
        terms["gradient_penalty"] = F.mse_loss(norms, torch.full_like(norms, gp_target)) * (gp_weight / gp_target**2)
    return terms | _d_labels(logits[: 2 * len(reals)], labels, label_weight)


def wgan_gp_g(
    critic: Critic, fakes: Tensor, labels: Tensor | None = None, *, label_weight: float = 1.0
) -> dict[str, Tensor]:
    """G's loss: minus the mean score of its images, and AC-GAN's label term (appendix A.1, B).

    fakes: [N, C, R, R]; labels: one-hot [N, label_dim]. Returns float32 scalars.
    """
    scores, logits = critic(fakes)
    terms = {"generator": -scores.mean()}
    return terms | _g_labels(logits, labels, label_weight)


def lsgan_d(
    critic: Critic,
    reals: Tensor,
    fakes: Tensor,
    labels: Tensor | None = None,
    *,
    fake_weight: float = 0.1,
    label_weight: float = 1.0,
) -> dict[str, Tensor]:
    """D's least-squares loss: a score of 0 for reals, of 1 for fakes; and AC-GAN's label terms (appendix B).

    reals, fakes: [N, C, R, R] in [-1, 1]; labels: one-hot [N, label_dim], of reals and fakes alike. Returns float32
    scalars.
    """
    scores, logits = critic(torch.cat([reals, fakes]), sets=2)
    real_scores, fake_scores = scores.chunk(2)
    terms = {"reals": real_scores.square().mean(), "fakes": fake_weight * (fake_scores - 1).square().mean()}
    return terms | _d_labels(logits, labels, label_weight)


def lsgan_g(
    critic: Critic, fakes: Tensor, labels: Tensor | None = None, *, label_weight: float = 1.0
) -> dict[str, Tensor]:
    """G's least-squares loss: a score of 0 for its images; and AC-GAN's label term (appendix B).

    fakes: [N, C, R, R]; labels: one-hot [N, label_dim]. Returns float32 scalars.
    """
    scores, logits = critic(fakes)
    terms = {"generator": scores.square().mean()}
    return terms | _g_labels(logits, labels, label_weight)


def lsgan_noise(d_output: Tensor, strength: float = 0.2) -> Tensor:
    """Strength of the noise in D, for the moving average d of its score of fakes: strength max(d - 0.5, 0)^2.

    Both are scalars (appendix B).
    The score nears 1, the value it should have, only when D can tell all fakes, and that is when LSGAN breaks down.
    """
    return strength * (d_output - 0.5).clamp(min=0).square()


def gradient_norms(back: Pullbacks, scores: Tensor) -> Tensor:
    """Norm of the score's gradient over all pixels and channels of each image: [N], float32.

    back: what a critic filled; scores: [N], of all its images or of the last set or sets. Differentiable with respect
    to the critic's weights.
    Scores are summed before the derivative, as in the official code: minibatch stddev lets an image change its
    neighbours' scores too.
    """
    gradient = pulled_back(back, torch.ones_like(scores)[:, None])
    # Whose derivative PyTorch takes for 0 at a gradient of exactly zero.
    return torch.linalg.vector_norm(gradient.float(), dim=(1, 2, 3))


def _d_labels(logits: Tensor, labels: Tensor | None, weight: float) -> dict[str, Tensor]:
    """AC-GAN's term for reals and fakes of the same labels [N, label_dim], logits [2 N, label_dim]."""
    if labels is None:
        return {}
    # Two means over N images each, so twice the mean over both.
    return {"labels": weight * 2 * F.cross_entropy(logits, torch.cat([labels, labels]))}


def _g_labels(logits: Tensor, labels: Tensor | None, weight: float) -> dict[str, Tensor]:
    """AC-GAN's term for fakes: logits and labels [N, label_dim]."""
    return {} if labels is None else {"generator_labels": weight * F.cross_entropy(logits, labels)}
