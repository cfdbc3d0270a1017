"""A generator as one ONNX file, made operation by operation from its plan."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from progan.config import GeneratorConfig
from progan.export.plan import Activation, Conv, Dense, PixelNorm, Plan, ToRgb, UpConv, plan, weight_count
from progan.networks import Generator
from progan.support.config_io import to_json
from progan.support.errors import ConfigError
from progan.support.files import write_whole

OPSET = 17
MOST_BYTES = 2**31 - 2**20  # of one protobuf message, with room for the graph


def write_onnx(g: Generator, about: dict[str, Any], out: Path) -> None:
    """Write a generator to `out`: inputs z and, with classes, labels (one-hot); outputs rgb4, rgb8, ...

    The batch is dynamic. An image at a stage is a blend of two outputs (`progan.export.plan.blend`), and of an image
    with tanh its tanh. about: facts that stand beside the weights; they go into the metadata as JSON, with the config.
    Raises ConfigError when the package onnx is missing, `out` exists, or the network is over 2 GB.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(f"--to: onnx is not installed ({error}); pip install 'progan[onnx]'") from None
    if out.exists():
        raise ConfigError(f"--out: {out} is there already; delete it or choose another name")
    p = plan(g)
    size = 4 * weight_count(p)
    if size > MOST_BYTES:
        raise ConfigError(f"--to: {size / 1e9:.1f} GB of weights do not fit into one ONNX file; 2 GB is the most")
    graph = _Graph(onnx, p).finished()
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], producer_name="progan")
    model.ir_version = 8  # what came with this opset: older runtimes refuse a newer one
    onnx.helper.set_model_props(model, _metadata(g.config, about))
    onnx.checker.check_model(model)
    write_whole(out, lambda file: file.write(model.SerializeToString()))


def _metadata(config: GeneratorConfig, about: dict[str, Any]) -> dict[str, str]:
    facts = {"config": to_json(config), "tanh": config.output == "tanh", **about}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


class _Graph:
    """The nodes so far; `x` is the name of the value at hand."""

    def __init__(self, onnx: Any, p: Plan) -> None:
        self.helper, self.from_array = onnx.helper, onnx.numpy_helper.from_array
        self.float32 = onnx.TensorProto.FLOAT
        self.config = p.config
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.outputs: list[Any] = []
        self.inputs = [self._value("z", p.config.z_dim)]
        self.x = "z"
        if p.config.label_dim:
            self.inputs.append(self._value("labels", p.config.label_dim))
            self.x = self._node("Concat", "z", "labels", axis=1)
        for op in p.operations:
            self._add(op)

    def finished(self) -> Any:
        """The GraphProto."""
        return self.helper.make_graph(self.nodes, "generator", self.inputs, self.outputs, self.weights)

    def _add(self, op: Any) -> None:
        match op:
            case PixelNorm(eps):
                square = self._node("Mul", self.x, self.x)
                mean = self._node("ReduceMean", square, axes=[1], keepdims=1)
                root = self._node("Sqrt", self._node("Add", mean, self._weight(np.float32(eps))))
                self.x = self._node("Div", self.x, root)
            case Dense(weight, bias):
                product = self._node("MatMul", self.x, self._weight(weight.T.contiguous().numpy()))
                shape = self._weight(np.array([-1, len(bias), 4, 4]))
                maps = self._node("Reshape", product, shape)
                self.x = self._node("Add", maps, self._weight(bias.view(-1, 1, 1).numpy()))
            case Conv(weight, bias):
                self.x = self._convolved("Conv", weight, bias, pads=[1] * 4)
            case UpConv(weight, bias):
                self.x = self._convolved("ConvTranspose", weight, bias, pads=[1] * 4, strides=[2, 2])
            case Activation(slope):
                self.x = self._node("LeakyRelu", self.x, alpha=slope) if slope else self._node("Relu", self.x)
            case ToRgb(resolution, weight, bias):
                name = f"rgb{resolution}"
                self._convolved("Conv", weight, bias, name=name)
                self.outputs.append(self._value(name, self.config.channels, resolution, resolution))

    def _convolved(self, kind: str, weight: Any, bias: Any, **attributes: Any) -> str:
        return self._node(kind, self.x, self._weight(weight.numpy()), self._weight(bias.numpy()), **attributes)

    def _node(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        name = name or f"x{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _weight(self, values: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(self.from_array(np.asarray(values), name))
        return name

    def _value(self, name: str, *shape: int) -> Any:
        return self.helper.make_tensor_value_info(name, self.float32, ["batch", *shape])
