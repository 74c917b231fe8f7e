"""ONNX Runtime as compression uses it: fusing a graph, running it over a split."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tasks.gpu import CPU
from tasks.pixels import Images, Pixels
from tasks.runtime import Floats


def fuse(source: Path, target: Path) -> None:
    """Write the graph with constants folded and nodes fused, still in ONNX's own operators."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=[CPU])


def run_logits(session: Any, images: Images, batches: Sequence[int] = (64,)) -> Floats:
    """Logits float32 N×C of uint8 N×S×S×3 images, in batches of the given sizes in turn."""
    return in_batches(lambda batch: session.run(["logits"], {"images": batch}), images, batches)


def in_batches(
    run: Callable[[Pixels], Sequence[Floats]], images: Images, batches: Sequence[int]
) -> Floats:
    """The first output of a model for all images, in batches of the given sizes in turn."""
    return np.concatenate([run(batch)[0] for batch in _batches(images, batches)])


def logit_error(logits: Floats, wanted: Floats) -> float:
    """Root mean square of the differences, in units of the wanted logits' deviation."""
    return float(np.sqrt(np.mean((logits - wanted) ** 2)) / (wanted.std() + 1e-12))


def _batches(images: Images, sizes: Sequence[int]) -> Iterator[Pixels]:
    start, turn = 0, 0
    while start < len(images):
        size = sizes[turn % len(sizes)]
        yield np.ascontiguousarray(images[start : start + size])
        start, turn = start + size, turn + 1
