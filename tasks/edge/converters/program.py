"""ONNX → PyTorch: a bundle's graph as a module that torch.export takes.

Shared by the converters that start from PyTorch. It runs in their environments, with torch, onnx
and numpy alone, on one image at a time: what depends on shapes alone is computed once.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from program_operators import (
    DEQUANTIZE,
    OPERATORS,
    STATIC,
    clip_as_quantized,
    dequantize,
    dequantize_weights,
    quantize,
    same,
)
from torch import Tensor, nn
from torch.nn import functional as F

QUANTIZE = "QuantizeLinear"
PROBABILITIES = "probabilities"
TRANSPOSED = ".transposed"


class _Step(NamedTuple):
    function: Any
    inputs: list[str]
    output: str


class Program(nn.Module):
    """The graph: uint8 1×S×S×3 → its outputs, the probabilities first, then by name.

    With `int8`, int8 layers stay what they are, in PyTorch's own operators, which its backends
    know: int8 activations for uint8 ones (the same numbers, 128 lower). Without, they become
    float: the int8 weights' values, and activations cut where eight bits end but not rounded.

    Raises ValueError when it has an operator, or a use of one, that is not known here.
    """

    def __init__(self, model: Any, int8: bool) -> None:
        super().__init__()
        graph = model.graph
        (given,) = graph.input
        self.given, self.size = given.name, given.type.tensor_type.shape.dim[1].dim_value
        self.outputs = sorted(
            (one.name for one in graph.output), key=lambda name: (name != PROBABILITIES, name)
        )
        self.int8 = int8
        self.fixed = _constants(graph)
        self.products = {node.input[1] for node in graph.node if node.op_type == "MatMul"}
        self.steps: list[_Step] = []
        # Computed anew for each use: backends look for the one in front of each operator.
        self.repeated: dict[str, _Step] = {}
        values: dict[str, Tensor] = {self.given: self.example()}
        for node in graph.node:
            self._add(node, values)
        steps = (*self.steps, *self.repeated.values())
        self.places = self._keep(name for step in steps for name in step.inputs)

    def example(self) -> Tensor:
        """An image: zeros, uint8 1×S×S×3."""
        return torch.zeros(1, self.size, self.size, 3, dtype=torch.uint8)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """All outputs, in the order of `outputs`."""
        values = {self.given: images}
        for step in self.steps:
            values[step.output] = self._run(step, values)
        return tuple(self._value(name, values) for name in self.outputs)

    def _run(self, step: _Step, values: dict[str, Tensor]) -> Any:
        return step.function(*(self._value(name, values) for name in step.inputs))

    def _value(self, name: str, values: dict[str, Tensor]) -> Any:
        if name in self.repeated:
            return self._run(self.repeated[name], values)
        return getattr(self, self.places[name]) if name in self.places else values[name]

    def _add(self, node: Any, values: dict[str, Tensor]) -> None:
        """Run the node on the example; keep it as a step unless its result is a constant."""
        step = self._step(node)
        known = self.fixed | values
        result = step.function(*(known[name] for name in step.inputs))
        weights = node.op_type == DEQUANTIZE and bool(step.inputs)
        if node.op_type == "Shape" or (not weights and self.fixed.keys() >= set(step.inputs)):
            self.fixed[step.output] = result
            return
        values[step.output] = result
        if node.op_type == DEQUANTIZE:
            self.repeated[step.output] = step
        else:
            self.steps.append(step)

    def _step(self, node: Any) -> _Step:
        (output,) = node.output
        names = list(node.input)
        given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == DEQUANTIZE:
            return self._dequantize(names, output, given.get("axis", 1))
        if node.op_type == QUANTIZE:
            make = quantize if self.int8 else clip_as_quantized
            return _Step(make(self._numbers(names[1]), self._numbers(names[2])), names[:1], output)
        if node.op_type not in OPERATORS:
            raise ValueError(f"the operator {node.op_type} is not known here")
        if node.op_type == "MatMul" and self._is_layer(names[1]):
            return _Step(F.linear, names, output)
        static = STATIC.get(node.op_type, ())
        numbers = [self._numbers(name) for i, name in enumerate(names) if i in static]
        function = OPERATORS[node.op_type](given, *numbers)
        return _Step(function, [n for i, n in enumerate(names) if i not in static and n], output)

    def _is_layer(self, weights: str) -> bool:
        """Whether a product is by int8 weights: they are kept as F.linear, which backends know."""
        step = self.repeated.get(weights)
        return step is not None and step.inputs[0].endswith(TRANSPOSED)

    def _numbers(self, name: str) -> Any:
        """A constant as a number or a list of them; None of an input that is left out."""
        if name and name not in self.fixed:
            raise ValueError(f"{name} depends on the image, where a constant is needed")
        return self.fixed[name].tolist() if name else None

    def _dequantize(self, names: list[str], output: str, axis: int) -> _Step:
        value, scale, zero = names
        if value not in self.fixed:
            numbers = self._numbers(scale), self._numbers(zero)
            return _Step(dequantize(*numbers) if self.int8 else same, [value], output)
        weights, scales, zeros = self.fixed[value], self.fixed[scale], self.fixed[zero]
        axis %= weights.ndim or 1
        if self.int8 and weights.dtype == torch.int8 and scales.ndim:
            self.fixed[f"{zero}.int64"] = zeros.to(torch.int64)
            if output in self.products and weights.ndim == 2:
                value, axis = f"{value}{TRANSPOSED}", 1 - axis
                self.fixed[value] = weights.t().contiguous()
            return _Step(dequantize_weights(axis), [value, scale, f"{zero}.int64"], output)
        # Biases too: backends round them by themselves, as the int8 kernels of ONNX Runtime do.
        shape = [-1 if scales.ndim and i == axis else 1 for i in range(weights.ndim)]
        plain = (weights.float() - zeros.float().reshape(shape)) * scales.reshape(shape)
        return _Step(lambda: plain, [], output)

    def _keep(self, names: Iterable[str]) -> dict[str, str]:
        """Register the constants that steps read; the attribute of each."""
        places = {n: f"constant_{i}" for i, n in enumerate(sorted(set(names) & self.fixed.keys()))}
        for name, place in places.items():
            self.register_buffer(place, self.fixed[name])
        self.fixed = {}
        return places


def load(path: str, int8: bool) -> Program:
    """The program of an ONNX file."""
    return Program(onnx.load(path), int8).eval()


def run(program: nn.Module, images: Any) -> Any:
    """Probabilities float32 N×C of uint8 N×S×S×3, one image at a time."""
    with torch.inference_mode():
        return np.concatenate([program(torch.from_numpy(image[None]))[0] for image in images])


def _constants(graph: Any) -> dict[str, Tensor]:
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
