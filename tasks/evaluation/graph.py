"""Runs a graph of the pipeline over a split: uint8 images in, named float32 arrays out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tasks.errors import CompressionError
from tasks.pixels import Images
from tasks.runtime import Floats, RuntimeName, open_model

_BATCH = 64  # images at a time: 224x224 activations of a batch stay in the hundreds of MB


def run_graph(
    path: Path, images: Images, outputs: Sequence[str], runtime: RuntimeName = "onnxruntime"
) -> list[Floats]:
    """Run uint8 N×S×S×3 images through an ONNX file; float32 arrays in the order of `outputs`.

    Raises as `open_graph` and what it gives do.
    """
    return open_graph(path, outputs, runtime)(images)


def open_graph(
    path: Path, outputs: Sequence[str], runtime: RuntimeName = "onnxruntime"
) -> Callable[[Images], list[Floats]]:
    """A function that does what `run_graph` does, for many splits; threads may share it.

    Raises CompressionError when the file is no such graph, and the function does when it gives
    values that are not finite; RuntimeMissing when `runtime` is not installed.
    """
    if not path.is_file():
        raise CompressionError(f"{path} does not exist; `dvc repro compress` builds it")
    try:  # one thread: the same sums in the same order, however many cores there are
        run = open_model(path, runtime, 1, outputs)
    except ValueError as error:
        raise CompressionError(f"{path}: {error}") from None

    def answers(images: Images) -> list[Floats]:
        parts = [run(np.asarray(images[at : at + _BATCH])) for at in range(0, len(images), _BATCH)]
        results = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        for name, array in zip(outputs, results, strict=True):
            _check_finite(path, name, array)
        return results

    return answers


def _check_finite(path: Path, name: str, array: Floats) -> None:
    broken = int((~np.isfinite(array).reshape(len(array), -1).all(1)).sum())
    if broken:
        raise CompressionError(f"{path} gives {name} that are not finite on {broken} images")
