"""Runs an ONNX graph of the pipeline over a split: uint8 images in, named float32 arrays out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.errors import CompressionError
from tasks.pixels import Images

PROVIDER = "CPUExecutionProvider"
_BATCH = 64  # images at a time: 224x224 activations of a batch stay in the hundreds of MB


def run_graph(path: Path, images: Images, outputs: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    """Run uint8 N×S×S×3 images through an ONNX file; float32 arrays in the order of `outputs`.

    Raises CompressionError when the file is no such graph or gives values that are not finite.
    """
    import onnxruntime

    if not path.is_file():
        raise CompressionError(f"{path} does not exist; `dvc repro compress` builds it")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same sums in the same order on every machine
    session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
    missing = set(outputs) - {output.name for output in session.get_outputs()}
    if missing:
        raise CompressionError(f"{path} has no output {', '.join(sorted(missing))}")
    parts = [
        session.run(list(outputs), {"images": np.ascontiguousarray(images[at : at + _BATCH])})
        for at in range(0, len(images), _BATCH)
    ]
    results = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    for name, array in zip(outputs, results, strict=True):
        broken = int((~np.isfinite(array).reshape(len(array), -1).all(1)).sum())
        if broken:
            raise CompressionError(f"{path} gives {name} that are not finite on {broken} images")
    return results
