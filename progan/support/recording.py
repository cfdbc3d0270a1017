"""What a function does with tensors, recorded operation by operation and done again without Python's autograd."""

import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten
from torch.utils.weak import TensorWeakRef

T = TypeVar("T")


class Recording(Generic[T]):
    """A function of tensors, run once, whose operations can be done again to tensors of the same shapes.

    The operations are those after autograd, in the order in which they were done: forward, backward and second
    backward passes as one list, and so the same bits, at a fraction of the overhead. What Python decided on the way
    stands, so nothing may depend on a tensor's values; what the function left in other places is not done again.

    `record` makes one.
    """

    def __init__(self, operations: fx.GraphModule, lasting: Sequence[Tensor], shape: TreeSpec) -> None:
        self._operations, self._lasting, self._shape = operations, lasting, shape

    def again(self, inputs: Mapping[str, Tensor]) -> T:
        """What the function would return for these inputs, named and shaped as those it was recorded with."""
        with torch.no_grad():
            found: T = tree_unflatten(self._operations(*inputs.values(), *self._lasting), self._shape)
        return found


def record(
    function: Callable[[Mapping[str, Tensor]], T], inputs: Mapping[str, Tensor], lasting: Iterable[Tensor]
) -> tuple[T, Recording[T]]:
    """What function(inputs) returns, and how to do it again.

    function: of the inputs alone; it returns tensors in tuples, lists and dicts, with None where there are none.
    inputs: by name. lasting: tensors that it uses besides and whose place in memory stays, such as weights.
    Raises RuntimeError if the function uses any other tensor from outside.
    """
    known = list(lasting)
    recorder = _Recorder([*inputs.values(), *known])
    with recorder:
        result = function(inputs)
    found, shape = tree_flatten(result)
    recorder.graph.output([recorder.node_of(each) if isinstance(each, Tensor) else None for each in found])
    recorder.graph.eliminate_dead_code()
    return result, Recording(fx.GraphModule({}, recorder.graph), [tensor.detach() for tensor in known], shape)


class Recordings:
    """The recordings of one stage of training; those of another are dropped when it begins."""

    def __init__(self) -> None:
        self._stage: Hashable = None
        self._made: dict[Hashable, Recording[Any]] = {}

    def run(
        self,
        stage: Hashable,
        key: Hashable,
        function: Callable[[Mapping[str, Tensor]], T],
        inputs: Mapping[str, Tensor],
        lasting: Callable[[], Iterable[Tensor]],
    ) -> T:
        """function(inputs), by its recording where there is one of this key with the same inputs' names and shapes."""
        if stage != self._stage:
            self._stage, self._made = stage, {}
        key = (key, *((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items()))
        if key in self._made:
            return self._made[key].again(inputs)
        result, self._made[key] = record(function, inputs, lasting())
        return result


class _Recorder(TorchDispatchMode):
    """Writes down what is done to the given tensors, and to those made of them."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.graph = fx.Graph()
        # By id, which another tensor has once this one is gone. (A WeakKeyDictionary runs Python when a tensor goes, in
        # which a Ctrl-C would be lost.)
        self._nodes: dict[int, tuple[TensorWeakRef, fx.Node]] = {}
        for i, tensor in enumerate(given):
            self._note(tensor, self.graph.placeholder(f"given{i}"))

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The step that made a tensor."""
        ref, node = self._nodes.get(id(tensor), (None, None))
        if ref is None or node is None or ref() is not tensor:
            raise RuntimeError(f"a recorded function uses a tensor of shape {tuple(tensor.shape)} from outside")
        return node

    def _note(self, tensor: Tensor, node: fx.Node) -> None:
        self._nodes[id(tensor)] = TensorWeakRef(tensor), node

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.detach.default:
            self._note(out, self.node_of(args[0]))
            return out
        node = self.graph.call_function(func, *tree_map_only(Tensor, self.node_of, (args, kwargs or {})))
        for i, each in enumerate(out if isinstance(out, (tuple, list)) else ()):
            if isinstance(each, Tensor):
                self._note(each, self.graph.call_function(operator.getitem, (node, i)))
        if isinstance(out, Tensor):
            self._note(out, node)
        return out
