"""The loss terms against slow float64 formulas written from appendix A.1 and B, with critics simple enough for that."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progan.losses import gradient_norms, wgan_gp_d, wgan_gp_g
from progan.pull_back import Pullbacks, by_autograd

N, C, R, HIDDEN, CLASSES = 6, 3, 4, 5, 4
PIXELS = C * R * R


class Toy(nn.Module):
    """score = tanh(x A) . b, logits = x K: its gradient can be written down."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.a = nn.Parameter(torch.from_numpy(rng.normal(0, 0.5, (PIXELS, HIDDEN))).float())
        self.b = nn.Parameter(torch.from_numpy(rng.normal(0, 3, HIDDEN)).float())
        self.k = nn.Parameter(torch.from_numpy(rng.normal(0, 0.3, (PIXELS, CLASSES))).float())
        self.calls: list[tuple[int, int]] = []

    def forward(self, images: Tensor, *, sets: int = 1, back: Pullbacks | None = None) -> tuple[Tensor, Tensor]:
        self.calls.append((len(images), sets))
        x = images.flatten(1)
        if back is not None:
            back.append(by_autograd(lambda images: self(images)[0][:, None], images.detach()))
        return torch.tanh(x @ self.a) @ self.b, x @ self.k

    def numpy(self, images: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores, logits and gradients of the scores, image by image in float64."""
        a, b, k = (p.detach().cpu().double().numpy() for p in (self.a, self.b, self.k))
        x = images.cpu().double().numpy().reshape(len(images), -1)
        scores = np.array([np.tanh(row @ a) @ b for row in x])
        gradients = np.array([a @ ((1 - np.tanh(row @ a) ** 2) * b) for row in x])
        return scores, x @ k, gradients


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 3


REALS, FAKES = draw(N, C, R, R, seed=1), draw(N, C, R, R, seed=2)
MIX = torch.rand(N, 1, 1, 1, generator=torch.Generator().manual_seed(3))
LABELS = torch.eye(CLASSES)[[0, 3, 1, 1, 2, 0]]


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    rows = [np.log(np.exp(row).sum()) - row[label.argmax()] for row, label in zip(logits, labels, strict=True)]
    return float(np.mean(rows))


@pytest.mark.parametrize("target", [1.0, 750.0])
def test_ds_terms_are_the_slow_ones(target: float, device: torch.device) -> None:
    toy = Toy().to(device)
    terms = wgan_gp_d(toy, *(x.to(device) for x in (REALS, FAKES, MIX, LABELS)), gp_target=target)
    real, real_logits, _ = toy.numpy(REALS)
    fake, fake_logits, _ = toy.numpy(FAKES)
    _, _, slopes = toy.numpy(REALS + (FAKES - REALS) * MIX)
    norms = [sum(value**2 for value in row) ** 0.5 for row in slopes]
    wanted = {
        "wasserstein": np.mean(fake) - np.mean(real),
        "gradient_penalty": 10 * np.mean([(norm - target) ** 2 / target**2 for norm in norms]),
        "drift": 0.001 * np.mean(real**2),
        "labels": cross_entropy(real_logits, LABELS.numpy()) + cross_entropy(fake_logits, LABELS.numpy()),
    }
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert terms[name].dtype == torch.float32
        assert float(terms[name].detach()) == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_gs_terms_are_the_slow_ones(device: torch.device) -> None:
    toy = Toy().to(device)
    terms = wgan_gp_g(toy, FAKES.to(device), LABELS.to(device), label_weight=0.5)
    fake, fake_logits, _ = toy.numpy(FAKES)
    assert terms.keys() == {"generator", "generator_labels"}
    assert float(terms["generator"].detach()) == pytest.approx(-fake.mean(), rel=1e-5)
    wanted = 0.5 * cross_entropy(fake_logits, LABELS.numpy())
    assert float(terms["generator_labels"].detach()) == pytest.approx(wanted, rel=1e-5)


def test_weights_multiply_their_own_terms() -> None:
    toy = Toy()
    one = wgan_gp_d(toy, REALS, FAKES, MIX, LABELS)
    two = wgan_gp_d(toy, REALS, FAKES, MIX, LABELS, gp_weight=20.0, drift=0.003, label_weight=5.0)
    for name, factor in {"wasserstein": 1, "gradient_penalty": 2, "drift": 3, "labels": 5}.items():
        assert torch.allclose(two[name], factor * one[name]), name


def test_without_labels_there_are_no_label_terms() -> None:
    assert "labels" not in wgan_gp_d(Toy(), REALS, FAKES, MIX)
    assert wgan_gp_g(Toy(), FAKES).keys() == {"generator"}


def test_a_batch_twice_over_has_the_same_loss() -> None:
    toy = Toy()
    once = wgan_gp_d(toy, REALS, FAKES, MIX, LABELS)
    twice = wgan_gp_d(toy, *(torch.cat([x, x]) for x in (REALS, FAKES, MIX, LABELS)))
    for name in once:
        assert torch.allclose(once[name], twice[name], rtol=1e-5), name  # means, not sums


def test_drift_holds_reals_alone() -> None:
    toy = Toy()
    one, other = (wgan_gp_d(toy, REALS, fakes, MIX)["drift"] for fakes in (FAKES, FAKES + 1))
    assert torch.equal(one, other)
    assert not torch.equal(one, wgan_gp_d(toy, REALS + 1, FAKES, MIX)["drift"])


def test_mix_is_the_share_of_the_fake() -> None:
    toy = Toy()
    for mix, images in ((0.0, REALS), (1.0, FAKES)):
        norms = np.linalg.norm(toy.numpy(images)[2], axis=1)
        penalty = wgan_gp_d(toy, REALS, FAKES, torch.full((N, 1, 1, 1), mix))["gradient_penalty"]
        assert float(penalty.detach()) == pytest.approx(10 * np.mean((norms - 1) ** 2), rel=1e-5)


def test_the_norm_is_over_all_pixels_and_channels_of_one_image() -> None:
    toy = Toy()
    back = Pullbacks()
    scores, _ = toy(REALS, back=back)
    norms = gradient_norms(back, scores)
    assert norms.shape == (N,)
    assert np.allclose(norms.detach().numpy(), np.linalg.norm(toy.numpy(REALS)[2], axis=1), rtol=1e-5)


def test_reals_fakes_and_mixed_images_are_scored_as_three_sets() -> None:
    toy = Toy()
    wgan_gp_d(toy, REALS, FAKES, MIX)
    assert toy.calls == [(3 * N, 3), (N, 1)]  # and the mixed images once more, for the toy has autograd pull back
    toy.calls.clear()
    wgan_gp_d(toy, REALS, FAKES, MIX, gp_weight=0.0)
    assert toy.calls == [(2 * N, 2)]
    toy.calls.clear()
    wgan_gp_g(toy, FAKES)
    assert toy.calls == [(N, 1)]


def test_the_penaltys_gradient_reaches_the_weights(device: torch.device) -> None:
    toy = Toy().to(device)
    terms = wgan_gp_d(toy, *(x.to(device) for x in (REALS, FAKES, MIX)))
    found = torch.autograd.grad(terms["gradient_penalty"], [toy.a, toy.b])
    a, b = (x.detach().cpu().double().requires_grad_() for x in (toy.a, toy.b))
    x = (REALS + (FAKES - REALS) * MIX).double().flatten(1)
    slopes = ((1 - torch.tanh(x @ a) ** 2) * b) @ a.T  # d tanh(x A) . b / dx, by hand
    wanted = torch.autograd.grad(10 * ((slopes.norm(dim=1) - 1) ** 2).mean(), [a, b])
    for ours, theirs in zip(found, wanted, strict=True):
        assert theirs.abs().max() > 0.01
        assert torch.allclose(ours.cpu().double(), theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_the_penalty_trains_neither_g_nor_the_reals() -> None:
    fakes, reals = FAKES.clone().requires_grad_(), REALS.clone().requires_grad_()
    terms = wgan_gp_d(Toy(), reals, fakes, MIX)
    assert torch.autograd.grad(terms["gradient_penalty"], [fakes, reals], allow_unused=True) == (None, None)


def test_a_critic_without_slope_gives_no_nan() -> None:
    toy = Toy()
    with torch.no_grad():
        toy.b.zero_()
    terms = wgan_gp_d(toy, REALS, FAKES, MIX, gp_target=2.0)
    gradients = torch.autograd.grad(torch.stack(list(terms.values())).sum(), [toy.a, toy.b])
    assert float(terms["gradient_penalty"].detach()) == pytest.approx(10.0)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(("weight", "absent"), [("gp_weight", "gradient_penalty"), ("drift", "drift")])
def test_a_term_of_no_weight_is_left_out(weight: str, absent: str) -> None:
    toy = Toy()
    assert absent not in wgan_gp_d(toy, REALS, FAKES, MIX, **{weight: 0.0})
    assert weight != "gp_weight" or toy.calls == [(2 * N, 2)]  # and not paid for


def test_cross_entropy_here_is_pytorchs() -> None:
    logits = Toy().numpy(REALS)[1]
    assert cross_entropy(logits, LABELS.numpy()) == pytest.approx(
        float(F.cross_entropy(torch.from_numpy(logits), LABELS.double()))
    )
