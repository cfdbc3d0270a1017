"""D's gradient with respect to its images, written out layer by layer, against autograd's; and what it is made of."""

from typing import Any

import pytest
import torch
from torch import Tensor

from progan.config import DiscriminatorConfig
from progan.networks import Discriminator
from progan.ops import linear
from progan.pull_back import Pullbacks, pulled_back
from progan.stddev import stddev_gradient, with_stddev
from tests.devices import needs_float64

CONFIGS: dict[str, dict[str, Any]] = {
    "paper": {},
    "unfused": {"fused_scaling": False},
    "layer norm": {"norm": "layer", "fused_scaling": False},
    "no stddev": {"stddev_group": 0},
    "discrimination": {"minibatch_kernels": 3, "stddev_group": 0},
    "discrimination and stddev": {"minibatch_kernels": 3},
    "labels": {"label_dim": 2},
    "groups of two sizes": {"stddev_group": 2},
}
N = 5


@pytest.fixture(params=CONFIGS)
def d(request: pytest.FixtureRequest, device: torch.device) -> Discriminator:
    torch.manual_seed(0)
    config = DiscriminatorConfig(resolution=16, fmap_base=64, fmap_max=8, **CONFIGS[request.param])
    return Discriminator(config).to(device)


def by_autograd(d: Discriminator, images: Tensor, **stage: Any) -> Tensor:
    images = images.detach().requires_grad_()
    scores, _ = d(images, **stage)
    return torch.autograd.grad(scores.sum(), images, create_graph=True)[0]


def penalty_gradients(d: Discriminator, slopes: Tensor) -> Tensor:
    penalty = (slopes.square().sum((1, 2, 3)).sqrt() - 1).square().mean()
    found = torch.autograd.grad(penalty, list(d.parameters()), allow_unused=True, retain_graph=True)
    return torch.cat([each.flatten() for each in found if each is not None])


def close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("stage", [{"resolution": 4}, {"resolution": 8}, {"alpha": 0.3}], ids=str)
def test_it_is_autograds_to_the_second_order(d: Discriminator, stage: dict[str, Any]) -> None:
    r = stage.get("resolution", 16)
    images = torch.randn(2 * N, 3, r, r, generator=torch.Generator().manual_seed(1)).to(d.head.dense1.weight.device)
    back = Pullbacks()
    scores, _ = d(images, sets=2, back=back, **stage)
    for count, theirs in (
        (2 * N, by_autograd(d, images, sets=2, **stage)),  # of all
        (N, by_autograd(d, images[N:], **stage)),  # of the second set alone
    ):
        ours = pulled_back(back, torch.ones_like(scores[-count:])[:, None])
        assert close(ours, theirs)
        assert close(penalty_gradients(d, ours), penalty_gradients(d, theirs))


def test_it_computes_no_gradients_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    d, back = Discriminator(DiscriminatorConfig(resolution=16, fmap_base=64, fmap_max=8)), Pullbacks()
    scores, _ = d(torch.randn(4, 3, 16, 16), back=back)
    called: list[int] = []
    original = torch.ops.aten.convolution_backward
    monkeypatch.setattr(torch.ops.aten, "convolution_backward", lambda *a: (called.append(1), original(*a))[1])
    slopes = pulled_back(back, torch.ones_like(scores)[:, None])
    assert not called
    slopes.square().sum().backward()  # the weights are served by the second
    assert called
    assert d.blocks["16"].conv0.weight.grad is not None


@pytest.mark.parametrize(("images", "group"), [(8, 4), (5, 2), (4, 4), (3, 4), (1, 4)])
def test_derivatives_of_stddev(images: int, group: int, device: torch.device) -> None:
    needs_float64(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2 * images, 2, 2, 2, generator=generator, dtype=torch.float64).to(device).requires_grad_()
    scale = 1 + torch.arange(2 * images, device=device).view(-1, 1, 1, 1)  # no two groups alike
    assert torch.autograd.gradcheck(lambda x: with_stddev(x * scale, 2, group)[0], x)
    if images > 1:  # the root has a kink where an image is alone
        assert torch.autograd.gradgradcheck(lambda x: with_stddev(x * scale, 2, group)[0], x)


def test_stddevs_gradient_of_the_last_set_is_its_part_of_alls() -> None:
    x, grad = (torch.randn(12, c, 4, 4, generator=torch.Generator().manual_seed(c)) for c in (3, 4))
    _, normed = with_stddev(x, 3, 2)
    last = [each[-1:] for each in normed]
    torch.testing.assert_close(stddev_gradient(grad[8:], x[8:], last), stddev_gradient(grad, x, normed)[8:])


@pytest.mark.parametrize("biased", [True, False])
def test_derivatives_of_a_product(biased: bool, device: torch.device) -> None:
    needs_float64(device)
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (2, 4), *([(2,)] if biased else [])]
    inputs = [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(device).requires_grad_() for shape in shapes
    ]
    assert torch.equal(linear(*inputs), torch.nn.functional.linear(*inputs))
    assert torch.autograd.gradcheck(linear, inputs)
    assert torch.autograd.gradgradcheck(linear, inputs)
    seconds = []
    for product in (linear, torch.nn.functional.linear):  # gradgradcheck passes over gradients that end there
        firsts = torch.autograd.grad(product(*inputs).square().sum(), inputs, create_graph=True)
        seconds.append(torch.autograd.grad(sum(first.square().sum() for first in firsts), inputs))
    torch.testing.assert_close(*seconds)
