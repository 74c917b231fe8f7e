"""Where the time of a model goes: ONNX Runtime's profile of each node, with what the node costs.

What runs is the graph that ONNX Runtime made of the file (fused, other layouts), so that graph
is written out and read for the weights of each node; the shapes are those of the run.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tasks.edge.machine import Precision
from tasks.pixels import Pixels

INPUT = "images"
_WARM_UP = 3
_KEPT = 0.5  # of the runs of a node: the slower half may have been interrupted
_INT8 = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
# Operator → the position of the input that holds its weights.
_WEIGHTS = {
    "Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3,
    "Gemm": 1, "FusedGemm": 1, "QGemm": 3, "MatMul": 1, "FusedMatMul": 1, "MatMulInteger": 1,
    "DynamicQuantizeMatMul": 1, "QLinearMatMul": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Operator:
    """One node as it ran: milliseconds, multiply-accumulates, bytes read and written."""

    name: str
    type: str
    ms: float
    macs: int
    moved_bytes: int
    weight_bytes: int
    precision: Precision


@dataclass(frozen=True)
class _Weights:
    """What the optimised graph says of a node: its constants' bytes, its weights' shape."""

    bytes: int
    shape: tuple[int, ...] | None
    precision: Precision


def operators(model: Path, images: Pixels, threads: int, runs: int) -> list[Operator]:
    """Run an ONNX file `runs` times on uint8 N×S×S×3; its nodes in the order they ran."""
    with tempfile.TemporaryDirectory() as folder:
        events = _events(model, images, threads, runs, Path(folder))
        graph = onnx.load(Path(folder, "optimised.onnx")).graph
    known = {node.name: found for node, found in _constants(graph)}
    return [_operator(name, many, known.get(name)) for name, many in _by_node(events).items()]


def _events(model: Path, images: Pixels, threads: int, runs: int, folder: Path) -> list[Any]:
    """ONNX Runtime's record of each node of each run, in order; the graph goes to `folder`."""
    named = onnx.load(model)
    for position, node in enumerate(named.graph.node):
        node.name = node.name or f"{node.op_type}_{position}"  # by which the record is matched
    onnx.save(named, folder / "named.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    session = onnxruntime.InferenceSession(
        str(folder / "named.onnx"), options, providers=["CPUExecutionProvider"]
    )
    for _ in range(_WARM_UP + runs):
        session.run(None, {INPUT: images})
    record = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [event for event in record if event["name"].endswith("_kernel_time")]


def _by_node(events: Iterable[Any]) -> dict[str, list[Any]]:
    """The events of each node after the warm-up, by the node's name."""
    found: dict[str, list[Any]] = {}
    for event in events:
        found.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event)
    return {name: many[_WARM_UP:] for name, many in found.items()}


def _operator(name: str, events: list[Any], weights: _Weights | None) -> Operator:
    weights = weights or _Weights(0, None, "float32")
    first = events[0]["args"]
    taken = sorted(event["dur"] for event in events)  # microseconds
    kept = taken[: max(1, int(_KEPT * len(taken)))]
    moved = int(first["activation_size"]) + int(first["output_size"]) + weights.bytes
    return Operator(
        name=name,
        type=first["op_name"],
        ms=float(np.mean(kept)) / 1e3,
        macs=_macs(first, weights.shape),
        moved_bytes=moved,
        weight_bytes=weights.bytes,
        precision="int8" if _gives_bytes(first) else weights.precision,
    )


def _gives_bytes(event: Mapping[str, Any]) -> bool:
    """Whether a node's result is 8-bit integers, as of a pooling between int8 layers."""
    return any(kind in ("uint8", "int8") for kind in event["output_type_shape"][0])


def _macs(event: Mapping[str, Any], weights: tuple[int, ...] | None) -> int:
    """Of one run: each output takes as many as there are weights for its channel.

    In a blocked layout channels are padded: these count, for they are computed.
    """
    operator = event["op_name"]
    if operator not in _WEIGHTS:
        return 0
    inputs, outputs = (_shapes(event[f"{way}_type_shape"]) for way in ("input", "output"))
    results = prod(outputs[0])
    if weights is None:  # a product of two activations
        return results * inputs[0][-1]
    channels = weights[0] if "Conv" in operator else outputs[0][-1]
    return results * prod(weights) // channels


def _shapes(recorded: Iterable[Mapping[str, list[int]]]) -> list[list[int]]:
    return [shape for one in recorded for shape in one.values()]


def _constants(graph: Any) -> Iterator[tuple[Any, _Weights]]:
    """Each node with its constants; a DequantizeLinear between is looked through."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    for node in graph.node:
        used = [constants[name] for name in node.input if name in constants]
        size = sum(prod(tensor.dims) * _item_bytes(tensor) for tensor in used)
        position = _WEIGHTS.get(node.op_type)
        given = position is not None and position < len(node.input)
        tensor = constants.get(node.input[position]) if given else None
        int8 = node.op_type.startswith("QLinear") or (
            node.op_type in _WEIGHTS and tensor is not None and tensor.data_type in _INT8
        )
        shape = None if tensor is None else tuple(tensor.dims)
        yield node, _Weights(size, shape, "int8" if int8 else "float32")


def _item_bytes(tensor: Any) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
