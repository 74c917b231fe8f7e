"""ONNX Runtime on an NVIDIA GPU: its execution providers, and whether one runs here.

A build for GPUs lists its providers on every machine. Where the driver or a library is missing it
logs so and runs the session on the CPU: what a session runs on is asked of the session itself.
"""

import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from typing import Any

from tasks.errors import RuntimeMissing

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_OPTIONS = {
    CUDA: {
        "use_tf32": "0",  # ten bits of a float's mantissa, where float32 is asked for
        "cudnn_conv_algo_search": "HEURISTIC",  # else each new number of images is tried out
    }
}
_NEEDED = "`nvidia-smi` and the libraries of NVIDIA that docs/compression.md names"


def open_on(provider: str, model: str | bytes, options: Any) -> Any:
    """An onnxruntime.InferenceSession on `provider`; what it cannot run goes to CUDA or the CPU.

    `model` is a path or the file's bytes. Raises RuntimeMissing where the session would run without
    the provider, and whatever ONNX Runtime raises for a model or a driver that it cannot use.
    """
    import onnxruntime

    with redirect_stdout(sys.stderr):  # what a command prints as JSON stays JSON
        onnxruntime.preload_dlls()  # of NVIDIA's wheels, which no search path has
    others = (CUDA, CPU) if provider == TENSORRT else (CPU,)
    providers = [(name, _OPTIONS.get(name, {})) for name in (provider, *others)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a provider it has not: raised below
        session = onnxruntime.InferenceSession(model, options, providers, enable_fallback=0)
    found = session.get_providers()
    if found[0] != provider:
        raise RuntimeMissing(f"a session with {provider} runs on {found[0]}")
    return session


def lack(provider: str, listed: Sequence[str]) -> str | None:
    """Why nothing runs on `provider` here, with the way out; None where it does.

    `listed` is what onnxruntime.get_available_providers() gives.
    """
    if provider not in listed:
        return f"this build of ONNX Runtime has no {provider}; {_install()}"
    reason = _failure(provider)
    return reason and f"{provider} is installed and does not run here ({reason}); check {_NEEDED}"


def _install() -> str:
    import onnxruntime

    uv, wanted = ".venv/bin/uv pip", f"'onnxruntime-gpu[cuda,cudnn]=={onnxruntime.__version__}'"
    return f"{uv} uninstall onnxruntime && {uv} install {wanted}"


@cache
def _failure(provider: str) -> str | None:
    """What goes wrong with a convolution on the provider; asked once in a process."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = open_on(provider, _convolution(), options)
        session.run(None, {"x": np.ones((1, 1, 4, 4), np.float32)})
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None


def _convolution() -> bytes:
    """An ONNX file of one convolution, x float32 1×1×4×4 by itself: it needs cuDNN on a GPU."""
    from onnx import TensorProto, helper

    node = helper.make_node("Conv", ["x", "x"], ["y"])
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, side, side])
        for name, side in (("x", 4), ("y", 1))
    )
    graph = helper.make_graph([node], "convolution", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(made.SerializeToString())
