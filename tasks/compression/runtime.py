"""ONNX Runtime as the pipeline uses it: opening a graph, running it over a split."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from tasks.pixels import Images, Pixels

PROVIDER = "CPUExecutionProvider"
Floats = npt.NDArray[np.float32]


def open_session(path: Path, threads: int) -> Any:
    """An onnxruntime.InferenceSession on the CPU with that many intra-op threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are about its own optimizer
    return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])


def run_logits(session: Any, images: Images, batches: Sequence[int] = (64,)) -> Floats:
    """Logits float32 N×C of uint8 N×S×S×3 images, in batches of the given sizes in turn."""
    parts = [session.run(["logits"], {"images": batch})[0] for batch in _batches(images, batches)]
    return np.concatenate(parts)


def usable_cores() -> int:
    """The processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batches(images: Images, sizes: Sequence[int]) -> Iterator[Pixels]:
    start, turn = 0, 0
    while start < len(images):
        size = sizes[turn % len(sizes)]
        yield np.ascontiguousarray(images[start : start + size])
        start, turn = start + size, turn + 1
