"""Nodes and constants to be added to an ONNX graph, under names that no exporter gives."""

from typing import Any

import numpy as np
import numpy.typing as npt


class Additions:
    """What is added to a graph: `extend` writes it. Constants become float32, or stay int64."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, name: str, values: npt.ArrayLike) -> str:
        """Keep an array under a name, once; gives the name to use as an input."""
        from onnx import numpy_helper

        array, full = np.asarray(values), f"{self._prefix}.{name}"
        kept = array if array.dtype == np.int64 else array.astype(np.float32)
        self._constants[full] = numpy_helper.from_array(kept, full)
        return full

    def axes(self, *axes: int) -> str:
        """Axes as the operators since opset 18 take them: an input."""
        return self.constant("axes." + "_".join(map(str, axes)), np.array(axes, np.int64))

    def node(self, operator: str, *inputs: str, output: str | None = None, **more: Any) -> str:
        """Add an operator; gives the name of its one output."""
        from onnx import helper

        name = f"{self._prefix}.{operator}_{len(self._nodes)}"
        made = output or f"{name}.output"
        self._nodes.append(helper.make_node(operator, list(inputs), [made], name, **more))
        return made

    def sum(self, values: str, width: int) -> str:
        """Add up the last axis, `width` wide, which stays as 1.

        As a product: a ReduceSum that drops its axis is fused by OpenVINO 2026.4 with what follows
        it, and then gives infinities from some 64 images on.
        """
        return self.node("MatMul", values, self.constant(f"ones.{width}", np.ones((width, 1))))

    def extend(self, graph: Any) -> None:
        """Write all of it to the end of an onnx.GraphProto."""
        graph.initializer.extend(self._constants.values())
        graph.node.extend(self._nodes)
