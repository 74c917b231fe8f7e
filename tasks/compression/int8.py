"""A float graph and the ranges of its activations → the int8 graph, by onnxruntime's quantizer.

Weights are int8 with a scale per output channel, activations uint8 (on x86 the dot-product
instructions multiply unsigned by signed bytes), both as QuantizeLinear/DequantizeLinear pairs.
These parts stay in float: the normalisation of the input, which is cheap and would be rounded
twice, everything from the last pooling on, so that embedding and logits keep their resolution,
and every operator that is not listed here.
"""

import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import add_infer_metadata

from tasks.compression.calibration import Range
from tasks.compression.runtime import fuse
from tasks.errors import CompressionError

_OPERATORS = ["Conv", "Add", "Relu", "Clip", "MaxPool"]
# Where linear layers on every position do the work (ConvNeXt, transformers), they are quantized
# too; their sums are not: the residual stream that they carry is too wide for eight bits.
_LINEAR_OPERATORS = ["Conv", "MatMul"]
_WEIGHTED = ("Conv", "MatMul")
SUM = "sum"


def prepare(source: Path) -> Any:
    """The onnx.ModelProto of `source` with shapes inferred, constants folded and nodes fused.

    Raises CompressionError when it has weights that are not finite, or an operator that
    ONNX Runtime does not know.
    """
    _require_finite(onnx.load(source))
    with tempfile.TemporaryDirectory() as folder:
        fused = Path(folder, "fused.onnx")
        try:
            fuse(source, fused)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise CompressionError(f"ONNX Runtime cannot read the graph: {reason}") from None
        graph = onnx.shape_inference.infer_shapes(onnx.load(fused))
    add_infer_metadata(graph)  # or the quantizer infers them again, through a file, every time
    return graph


def layers(graph: Any) -> dict[str, str]:
    """What int8 takes in, in order, by name of the node: the weights of a layer, or SUM.

    Raises CompressionError when there is no layer with weights.
    """
    weights = {initializer.name for initializer in graph.graph.initializer}
    kinds, outside = operators(graph), set(_input_nodes(graph))
    found: dict[str, str] = {}
    for node in graph.graph.node:
        if node.op_type not in kinds or node.name in outside:
            continue
        if node.op_type in _WEIGHTED and node.input[1] in weights:
            found[node.name] = node.input[1]
        elif node.op_type == "Add":
            found[node.name] = SUM
    if set(found.values()) <= {SUM}:
        present = ", ".join(sorted({node.op_type for node in graph.graph.node}))
        raise CompressionError(
            f"no layer can be int8: of the operators {present} none is a convolution or a linear "
            "layer with constant weights"
        )
    return found


def operators(graph: Any) -> list[str]:
    """The operators that are quantized in this graph."""
    weights = {initializer.name for initializer in graph.graph.initializer}
    # Heads are another operator, Gemm, and stay in float.
    linear = any(node.op_type == "MatMul" and node.input[1] in weights for node in graph.graph.node)
    return _LINEAR_OPERATORS if linear else _OPERATORS


def activations(graph: Any) -> list[str]:
    """The tensors whose ranges `to_int8` needs: in and out of the operators, but for weights."""
    kinds, outside = operators(graph), set(_input_nodes(graph))
    constant = {initializer.name for initializer in graph.graph.initializer}
    floats = {
        value.name
        for value in (*graph.graph.value_info, *graph.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    names = [
        name
        for node in graph.graph.node
        if node.op_type in kinds and node.name not in outside
        for name in (*node.input, *node.output)
        if name in floats and name not in constant
    ]
    return list(dict.fromkeys(names))


def to_int8(
    graph: Any,
    ranges: dict[str, Range],
    floats: Collection[str] = (),
    only: Collection[str] = (),
) -> Any:
    """The quantized onnx.ModelProto; `graph` is left as it is.

    Nodes named in `floats` stay in float; where `only` names nodes, all others do.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    with _quiet():
        quantizer = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=data,
            nodes_to_quantize=list(only),
            nodes_to_exclude=[*_input_nodes(graph), *floats],
            op_types_to_quantize=operators(graph),
            # attention multiplies two activations: that stays in float
            extra_options={"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    return quantizer.model.model


def _input_nodes(graph: Any) -> list[str]:
    """The nodes before the first convolution: cast, transpose, scale and shift."""
    names: list[str] = []
    for node in graph.graph.node:
        if node.op_type == "Conv":
            return names
        names.append(node.name)
    return []


def _require_finite(graph: Any) -> None:
    for initializer in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise CompressionError(f"the weights {initializer.name} are not finite")


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop onnxruntime's advice and progress; errors are raised, not logged."""
    root, library = logging.getLogger(), logging.getLogger("onnxruntime")
    level = library.level
    root.addFilter(_is_ours)
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.removeFilter(_is_ours)
        library.setLevel(level)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name != "root"  # onnxruntime logs to the root logger; we never do
