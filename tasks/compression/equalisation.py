"""Changes of a float graph that int8 loses less of: equalised channels, corrected biases.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction"
(arXiv 1906.04721). Batch norms are folded already. Whether either helps depends on the network:
tasks.compression.quantize keeps what brings the logits nearer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from tasks.compression.calibration import Observed

Array = npt.NDArray[Any]
_SWEEPS = 20  # over all pairs; the ranges settle in fewer
_LARGEST = 1e3  # that a channel is scaled by, up or down


@dataclass(frozen=True)
class Pair:
    """Two convolutions with nothing but a rectifier between: nodes of a graph."""

    first: Any
    between: Any | None
    second: Any


def pairs(graph: Any) -> list[Pair]:
    """The convolutions whose channels can be scaled against each other, in order.

    Only the second may read what the first makes, through a Relu, a Clip from zero or directly.
    """
    readers = _readers(graph)
    found = []
    for first in graph.graph.node:
        second = _only_reader(readers, first) if first.op_type == "Conv" else None
        between = None
        if second is not None and _is_rectifier(graph, second):
            between, second = second, _only_reader(readers, second)
        made = (between or first).output[0]
        if second is not None and second.op_type == "Conv" and second.input[0] == made:
            pair = Pair(first, between, second)
            if _is_scalable(graph, pair):
                found.append(pair)
    return found


def equalise(graph: Any) -> Any:
    """A copy of an onnx.ModelProto that computes the same, with the channels of pairs alike.

    Channel i leaves the first convolution divided by sqrt(r1_i / r2_i), r the largest weight
    of the channel in the first and in the second, and enters the second multiplied by it. A
    Clip between (ReLU6) becomes a Relu, as in the paper: only there the result differs.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    found = pairs(copy)
    weights = _weights(copy, found)
    for _ in range(_SWEEPS):
        for pair in found:
            _equalise(pair, weights)
    for initializer in copy.graph.initializer:
        if initializer.name in weights:
            initializer.CopyFrom(
                numpy_helper.from_array(
                    weights[initializer.name].astype(np.float32), initializer.name
                )
            )
    for pair in found:
        if pair.between is not None and pair.between.op_type == "Clip":
            pair.between.op_type = "Relu"
            del pair.between.input[1:]
    return copy


def correct_biases(graph: Any, int8: Any, seen: dict[str, Observed]) -> Any:
    """A copy of `graph` whose biases make up for what rounding its weights shifts on average.

    `int8` is what tasks.compression.int8.to_int8 made of `graph`; `seen` gives the mean input
    of each channel, E[x]. A convolution's bias is lowered by (Ŵ − W)·E[x].
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    values = _values(copy)
    rounded = _values(int8)
    stored = {initializer.name: initializer for initializer in copy.graph.initializer}
    for node in copy.graph.node:
        name = f"{node.input[1]}_quantized" if node.op_type == "Conv" else ""
        means = seen[node.input[0]].means if name in rounded else None
        if means is None or len(node.input) < 3:
            continue
        scale = rounded[f"{node.input[1]}_scale"].reshape(-1, 1, 1, 1)
        shift = rounded[name].astype(np.float64) * scale - values[node.input[1]]
        bias = values[node.input[2]] - _response(shift.sum((2, 3)), means)
        stored[node.input[2]].CopyFrom(
            numpy_helper.from_array(bias.astype(np.float32), node.input[2])
        )
    return copy


def _response(matrix: Array, means: Array) -> Array:
    """matrix[o, i] · means[channel i of o's group], summed over i."""
    outputs, width = matrix.shape
    groups = len(means) // width
    grouped = matrix.reshape(groups, outputs // groups, width)
    return np.asarray(np.einsum("goi,gi->go", grouped, means.reshape(groups, width)).reshape(-1))


def _equalise(pair: Pair, weights: dict[str, Array]) -> None:
    first, second = weights[pair.first.input[1]], weights[pair.second.input[1]]
    out_range = np.abs(first).max((1, 2, 3))
    in_range = _by_input(second, len(out_range))
    usable = (out_range > 0) & (in_range > 0)
    ratio = out_range / np.where(usable, in_range, 1)
    scale = np.where(usable, np.clip(np.sqrt(ratio), 1 / _LARGEST, _LARGEST), 1.0)
    first /= scale[:, None, None, None]
    if len(pair.first.input) > 2:
        weights[pair.first.input[2]] /= scale
    if second.shape[1] == 1:  # depthwise: each output belongs to one input
        second *= np.repeat(scale, len(second) // len(scale))[:, None, None, None]
    else:
        second *= scale[None, :, None, None]


def _by_input(weight: Array, channels: int) -> Array:
    """The largest weight that each input channel is multiplied by."""
    if weight.shape[1] == 1:
        return np.asarray(np.abs(weight).reshape(channels, -1).max(1))
    return np.asarray(np.abs(weight).max((0, 2, 3)))


def _is_scalable(graph: Any, pair: Pair) -> bool:
    """Whether the weights are constants of their own, and the second dense or depthwise."""
    names = [*pair.first.input[1:], *pair.second.input[1:]]
    users = [name for node in graph.graph.node for name in node.input]
    shapes = {initializer.name: initializer.dims for initializer in graph.graph.initializer}
    if any(name not in shapes or users.count(name) > 1 for name in names):
        return False
    first, second = shapes[pair.first.input[1]], shapes[pair.second.input[1]]
    return len(second) == 4 and (second[1] == first[0] or second[1] == 1)


def _is_rectifier(graph: Any, node: Any) -> bool:
    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip" or len(node.input) < 2:
        return False
    low = next((i for i in graph.graph.initializer if i.name == node.input[1]), None)
    return low is not None and float(numpy_helper.to_array(low)) == 0.0


def _readers(graph: Any) -> dict[str, list[Any]]:
    """The nodes that read each value; a graph's output counts as read by None."""
    readers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for value in graph.graph.output:
        readers.setdefault(value.name, []).append(None)
    return readers


def _only_reader(readers: dict[str, list[Any]], node: Any) -> Any | None:
    found = readers.get(node.output[0], [])
    return found[0] if len(found) == 1 else None


def _weights(graph: Any, found: Sequence[Pair]) -> dict[str, Array]:
    """Weights and biases of pairs, float64, to be changed in place."""
    names = {
        name for pair in found for name in (*pair.first.input[1:], *pair.second.input[1:]) if name
    }
    return {
        name: value.astype(np.float64) for name, value in _values(graph).items() if name in names
    }


def _values(graph: Any) -> dict[str, Array]:
    return {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
