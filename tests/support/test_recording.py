"""What is recorded and done again: the same operations, on the tensors at hand."""

import pytest
import torch
from torch import Tensor, nn

from progan.support.recording import Recordings, record


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Penalty:
    """Gradients of a gradient's norm, with an operation in place, views, several results and an unused one."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 4)
        self.calls = 0

    def __call__(self, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor], None]:
        self.calls += 1
        x = inputs["x"].detach().requires_grad_()
        inputs["x"].exp()  # of no use
        left, right = self.layer(x).square().mul_(2).chunk(2, dim=1)
        (slope,) = torch.autograd.grad((left * right).sum(), x, create_graph=True)
        loss = (slope.square().sum(1) - inputs["target"]).square().mean()
        return {"loss": loss.detach()}, list(torch.autograd.grad(loss, list(self.layer.parameters()))), None


def some(seed: int) -> dict[str, Tensor]:
    return {"x": draw(3, 6, seed=seed), "target": draw(3, seed=seed + 100)}


def test_done_again_it_is_what_the_function_gives() -> None:
    penalty = Penalty()
    _, recording = record(penalty, some(0), penalty.layer.parameters())
    assert penalty.calls == 1
    for seed in (0, 1):
        with torch.no_grad():  # weights that have moved since
            for weight in penalty.layer.parameters():
                weight.add_(draw(*weight.shape, seed=seed))
        terms, gradients, nothing = recording.again(some(seed))
        assert penalty.calls == 1 + seed
        wanted_terms, wanted, _ = penalty(some(seed))
        assert torch.equal(terms["loss"], wanted_terms["loss"])
        assert nothing is None
        assert all(torch.equal(a, b) for a, b in zip(gradients, wanted, strict=True))
        assert not any(gradient.requires_grad for gradient in gradients)


def test_what_nobody_needs_is_not_done_again() -> None:
    penalty = Penalty()
    _, recording = record(penalty, some(0), penalty.layer.parameters())
    done = [node.target for node in recording._operations.graph.nodes]
    assert torch.ops.aten.mul_.Tensor in done
    assert torch.ops.aten.exp.default not in done
    assert torch.ops.aten.detach.default not in done


def test_a_tensor_from_outside_is_refused() -> None:
    stray = draw(3, 6)
    with pytest.raises(RuntimeError, match=r"a tensor of shape \(3, 6\) from outside"):
        record(lambda inputs: inputs["x"] * stray, some(0), [])


def test_one_recording_for_each_key_and_shape_until_the_next_stage() -> None:
    penalty, recordings = Penalty(), Recordings()

    def run(stage: int, key: str, inputs: dict[str, Tensor]) -> int:
        recordings.run(stage, key, penalty, inputs, penalty.layer.parameters)
        return penalty.calls

    smaller = {name: tensor[:2] for name, tensor in some(0).items()}
    assert [run(0, "a", some(0)), run(0, "a", some(1)), run(0, "b", some(0)), run(0, "a", smaller)] == [1, 1, 2, 3]
    assert [run(0, "a", smaller), run(0, "a", some(2)), run(1, "a", some(0)), run(1, "a", some(1))] == [3, 3, 4, 4]
    assert [run(0, "a", some(0))] == [5]  # of the stage before nothing was kept
