"""PyTorch classifier → one ONNX file that takes pixels as they are.

in:  "images"     uint8 N×S×S×3, any N; scaling and normalisation are in the graph
out: "logits"     float32 N×C
     "embedding"  float32 N×D
The file is self-contained (no side file), batch norms are folded into the convolutions, and
the same weights give the same bytes.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tasks.files import atomic_write
from tasks.training.models import Classifier, ModelSpec

# Read by ONNX Runtime 1.18 and newer, so that devices need not run the newest.
OPSET, IR_VERSION = 20, 10
INPUT, LOGITS, EMBEDDING = "images", "logits", "embedding"


class _Deployed(nn.Module):
    """The classifier behind the input contract of the release bundle."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Classifier, spec: ModelSpec) -> None:
        super().__init__()
        self.model = model
        mean, std = (torch.tensor(values) for values in (spec.mean, spec.std))
        # For a row of pixels, not for one: a runtime then works on spans of 3·S numbers, not of
        # 3, which took a seventh of the time of an int8 resnet18.
        self.register_buffer("scale", (1 / (255 * std)).repeat(spec.size, 1))
        self.register_buffer("shift", (-mean / std).repeat(spec.size, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 N×S×S×3 to logits N×C and embedding N×D."""
        # Contiguous: with channels_last strides the exporter turns a flatten into gathers.
        x = (images.float() * self.scale + self.shift).permute(0, 3, 1, 2).contiguous()
        embedding = self.model.embed(x)
        return self.model.head(embedding), embedding


def export(model: Classifier, spec: ModelSpec, path: Path) -> None:
    """Write `model` as one ONNX file (opset OPSET), checked by onnx.checker.

    The model itself is left as it is. Raises whatever torch.onnx or onnx.checker raises.
    """
    plain: Classifier = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.zeros(2, spec.size, spec.size, 3, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            _Deployed(plain, spec).eval(),
            (example,),
            input_names=[INPUT],
            output_names=[LOGITS, EMBEDDING],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    save(program.model_proto, path)


def save(proto: Any, path: Path) -> None:
    """Tidy an onnx.ModelProto, check it and write it, atomically and as one file."""
    _tidy(proto)
    onnx.checker.check_model(proto, full_check=True)
    with atomic_write(path) as stream:
        stream.write(proto.SerializeToString(deterministic=True))


def _tidy(proto: Any) -> None:
    """Stable names, and nothing of the machine (the exporter records stack traces)."""
    graph = proto.graph
    proto.ir_version = IR_VERSION
    proto.producer_name, proto.producer_version = "visionloop", ""
    opsets = [opset for opset in proto.opset_import if opset.domain in _domains(graph)]
    del proto.opset_import[:]
    proto.opset_import.extend(opsets)
    del graph.value_info[:]
    for part in (proto, graph, *graph.input, *graph.output, *graph.node, *graph.initializer):
        del part.metadata_props[:]
    graph.name, graph.doc_string, proto.doc_string = "visionloop", "", ""
    _rename(graph)


def _domains(graph: Any) -> set[str]:
    return {node.domain.replace("ai.onnx", "") for node in graph.node}


def _rename(graph: Any) -> None:
    """Nodes and the values they make become <operator>_<position>."""
    kept = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {}
    for position, node in enumerate(graph.node):
        node.name, node.doc_string = f"{node.op_type}_{position}", ""
        node.input[:] = [names.get(name, name) for name in node.input]
        for index, name in enumerate(node.output):
            if name and name not in kept:
                names[name] = f"{node.name}_out" + (f"_{index}" if index else "")
        node.output[:] = [names.get(name, name) for name in node.output]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's own deprecation warnings and its progress chatter."""
    levels = {
        name: logging.getLogger(name).level for name in ("onnxscript", "torch.onnx", "onnx_ir")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
