"""Weights stored in fewer bits, for size: arithmetic stays in float32, and so does the speed.

The file holds float16, or int8 with a scale per output channel, and the operators that turn them
back; a runtime does that once, when it opens the file. Any runtime of float networks can.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tasks.compression.export import save
from tasks.errors import CompressionError
from tasks.schema import Storage

Array = npt.NDArray[Any]
Stored = tuple[list[Any], list[Any]]  # initializers, nodes
_SMALLEST = 256  # numbers; fewer are not worth the operators


def store(source: Path, target: Path, kind: Storage) -> None:
    """Write the graph of `source` to `target` with its weights stored as `kind`.

    Raises CompressionError for weights that float16 cannot hold.
    """
    proto = onnx.load(source)
    graph = proto.graph
    kept: list[Any] = []
    made: list[Any] = []
    axes = dict(_weights(graph))
    for initializer in graph.initializer:
        values = numpy_helper.to_array(initializer)
        if initializer.name not in axes or values.size < _SMALLEST:
            kept.append(initializer)
            continue
        stored, nodes = _KINDS[kind](initializer.name, values, axes[initializer.name])
        kept += stored
        made += nodes
    nodes = [*made, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    save(proto, target)


def _weights(graph: Any) -> Iterator[tuple[str, int]]:
    """Names of the weights of layers, and the axis of their outputs."""
    for node in graph.node:
        if node.op_type == "Conv":
            yield node.input[1], 0
        elif node.op_type == "MatMul":
            yield node.input[1], -1
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            yield node.input[1], 0 if transposed else -1


def _float16(name: str, values: Array, axis: int) -> Stored:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise CompressionError(
            f"float16 cannot hold the weights {name}: {np.abs(values).max():g} is over 65504"
        )
    cast = helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT)
    return [numpy_helper.from_array(half, f"{name}_half")], [cast]


def _int8(name: str, values: Array, axis: int) -> Stored:
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    scale = np.abs(values).max(others, keepdims=True).astype(np.float32) / 127
    scale[scale == 0] = 1
    rounded = np.round(values / scale).astype(np.int8)
    nodes = [
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name]),
    ]
    stored = {f"{name}_int8": rounded, f"{name}_scale": scale}
    return [numpy_helper.from_array(value, key) for key, value in stored.items()], nodes


_KINDS: dict[Storage, Callable[[str, Array, int], Stored]] = {"fp16": _float16, "int8": _int8}
