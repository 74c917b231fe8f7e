"""fp32 ONNX → int8 ONNX: static quantization, written as QuantizeLinear/DequantizeLinear pairs.

Weights are int8 with a scale per output channel, activations uint8 (on x86 the dot-product
instructions multiply unsigned by signed bytes), ranges come from training images. These parts
stay in float: the normalisation of the input, which is cheap and would be rounded twice, and
everything from the last pooling on, so that embedding and logits keep their resolution.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tasks.compression.export import INPUT, save
from tasks.compression.runtime import Floats, open_session, run_logits
from tasks.pixels import Images, Pixels, crop

# Ranges from the extremes over all calibration images, or from their average over batches,
# which leaves out what one odd image reaches. Which is better depends on the network.
RANGES: dict[str, dict[str, Any]] = {
    "minmax": {},
    "moving average": {"CalibMovingAverage": True, "CalibMovingAverageConstant": 0.1},
}
_OPERATORS = ["Conv", "Add", "Relu", "Clip", "MaxPool"]
# Where linear layers on every position do the work (ConvNeXt, transformers), they are quantized
# too; their sums are not: the residual stream that they carry is too wide for eight bits.
_LINEAR_OPERATORS = ["Conv", "MatMul"]
_BATCH = 16
log = logging.getLogger(__name__)


def quantize(source: Path, target: Path, images: Images, count: int, seed: int) -> str:
    """Quantize the graph of `source` (what tasks.compression.export wrote) into `target`.

    `images` are the training images, uint8 N×P×P×3, of whose middle the graph takes its input;
    `count` of them, drawn with `seed`, calibrate, and as many others decide which of RANGES is
    kept: the one whose logits are closest to the float graph's. Returns its name. Raises what
    onnxruntime raises.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    size = _input_side(source)
    some, others = np.sort(order[:count]), np.sort(order[count : 2 * count])
    calibration = np.ascontiguousarray(crop(images[some], size))
    judges = crop(images[others], size) if len(others) else calibration
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, draft = Path(folder, "prepared.onnx"), Path(folder, "draft.onnx")
        quant_pre_process(source, prepared)
        wanted = run_logits(open_session(source, 1), judges)
        errors: dict[str, float] = {}
        for name, options in RANGES.items():
            _quantize(prepared, draft, calibration, options)
            save(onnx.load(draft), Path(folder, name))
            errors[name] = _error(run_logits(open_session(draft, 1), judges), wanted)
        best = min(errors, key=lambda name: errors[name])
        save(onnx.load(Path(folder, best)), target)
    tried = ", ".join(f"{method} {error:.4f}" for method, error in errors.items())
    log.info("%s: ranges by %s (logit error: %s)", target.stem, best, tried)
    return best


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration images in batches."""

    def __init__(self, images: Pixels) -> None:
        self._starts = iter(range(0, len(images), _BATCH))
        self._images = images

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch by input name, or None at the end."""
        start = next(self._starts, None)
        return None if start is None else {INPUT: self._images[start : start + _BATCH]}


def _input_side(source: Path) -> int:
    """S of the graph's input N×S×S×3."""
    (graph_input,) = onnx.load(source).graph.input
    return int(graph_input.type.tensor_type.shape.dim[1].dim_value)


def _quantize(source: Path, target: Path, images: Pixels, options: dict[str, Any]) -> None:
    graph = onnx.load(source).graph
    quantize_static(
        source,
        target,
        _Images(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=_LINEAR_OPERATORS if _has_linear(graph) else _OPERATORS,
        nodes_to_exclude=_input_nodes(graph),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # attention multiplies two activations: that stays in float
        extra_options={**options, "MatMulConstBOnly": True},
    )


def _has_linear(graph: Any) -> bool:
    """Whether a layer multiplies by a matrix of weights; heads are another operator, Gemm."""
    weights = {initializer.name for initializer in graph.initializer}
    return any(node.op_type == "MatMul" and node.input[1] in weights for node in graph.node)


def _input_nodes(graph: Any) -> list[str]:
    """The nodes before the first convolution: cast, transpose, scale and shift."""
    names: list[str] = []
    for node in graph.node:
        if node.op_type == "Conv":
            return names
        names.append(node.name)
    raise ValueError("the graph has no convolution to quantize")


def _error(logits: Floats, wanted: Floats) -> float:
    """Root mean square of the logit differences, in units of the wanted logits' deviation."""
    return float(np.sqrt(np.mean((logits - wanted) ** 2)) / (wanted.std() + 1e-12))


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
