"""Temporary."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

RuntimeName = Literal["onnxruntime", "openvino"]


def available() -> list[RuntimeName]:
    import importlib.util

    return ["onnxruntime", "openvino"] if importlib.util.find_spec("openvino") else ["onnxruntime"]


def load(runtime: RuntimeName) -> None:
    import onnxruntime  # noqa: F401


def open_model(
    model: Path | bytes, runtime: RuntimeName, threads: int, outputs: Sequence[str] = ("logits",)
) -> Callable[[npt.NDArray[np.uint8]], list[npt.NDArray[Any]]]:
    from tasks.compression.runtime import open_session

    session = open_session(model, threads)
    return lambda images: session.run(list(outputs), {"images": images})
