"""What runs an ONNX file: ONNX Runtime, on the CPU or a GPU, and OpenVINO where it is installed.

`open_model` gives a function, uint8 N×S×S×3 images → named float32 arrays of N rows, that any
number of threads may call. All runtimes read the same file. Reduced precisions that a processor
may have are off, so that they agree (TensorRT has no option for that).
"""

import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tasks.errors import RuntimeMissing
from tasks.gpu import CPU, CUDA, TENSORRT, lack, open_on
from tasks.pixels import Pixels

RuntimeName = Literal["onnxruntime", "openvino", "cuda", "tensorrt"]
GPU: tuple[RuntimeName, ...] = ("cuda", "tensorrt")
TITLES: dict[RuntimeName, str] = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "cuda": "ONNX Runtime on CUDA",
    "tensorrt": "ONNX Runtime on TensorRT",
}
PROVIDERS: dict[RuntimeName, str] = {
    "onnxruntime": CPU,
    "openvino": CPU,  # what ONNX Runtime runs its file on
    "cuda": CUDA,
    "tensorrt": TENSORRT,
}
INPUT = "images"

Floats = npt.NDArray[np.float32]
Run = Callable[[Pixels], list[Floats]]


def available() -> list[RuntimeName]:
    """The runtimes that run here, ONNX Runtime on the CPU first."""
    return [name for name in get_args(RuntimeName) if missing(name) is None]


def missing(runtime: RuntimeName) -> str | None:
    """Why a runtime cannot be used here, with the way out; None where it can.

    Of a GPU a small network is run on it, once in a process, if this build of ONNX Runtime has it.
    """
    if runtime == "openvino":
        found = importlib.util.find_spec("openvino")
        # A folder of that name in the current directory is found too, as a package without origin.
        installed = found is not None and found.origin is not None
        install = ".venv/bin/uv pip install 'visionloop[openvino]'"
        return None if installed else f"OpenVINO is not installed; {install}"
    return lack(PROVIDERS[runtime], _listed()) if runtime in GPU else None


def idle_gpu() -> list[str]:
    """Why each GPU runtime that this build of ONNX Runtime has does not run here."""
    have = [name for name in GPU if PROVIDERS[name] in _listed()]
    return [reason for reason in map(missing, have) if reason is not None]


def version_of(distribution: str) -> str | None:
    """Of what is installed; onnxruntime-gpu, which brings the same module, is onnxruntime too."""
    for name in (distribution, f"{distribution}-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def version_of_runtime(runtime: RuntimeName) -> str | None:
    """Of the library that a runtime is of."""
    return version_of("openvino" if runtime == "openvino" else "onnxruntime")


def open_model(
    model: Path | bytes, runtime: RuntimeName, threads: int, outputs: Sequence[str] = ()
) -> Run:
    """A function that runs an ONNX file, or its bytes, with that many threads of the CPU.

    It takes uint8 N×S×S×3, any N, and gives `outputs` in their order, or all when none is named,
    as arrays of the caller's own. Raises RuntimeMissing when `runtime` is not here, ValueError when
    the model has no such output, and whatever the runtime raises for one it cannot run.
    """
    if reason := missing(runtime):
        raise RuntimeMissing(reason)
    if runtime == "openvino":
        return _OpenVino(model, threads, outputs)
    session = open_session(model, threads, PROVIDERS[runtime])
    names = _named([output.name for output in session.get_outputs()], outputs)

    def run(images: Pixels) -> list[Floats]:
        found: list[Floats] = session.run(names, {INPUT: np.ascontiguousarray(images)})
        return found

    return run


def load(runtime: RuntimeName) -> None:
    """Load the libraries of a runtime ahead of its first model."""
    if runtime == "openvino":
        _core().get_property("CPU", "FULL_DEVICE_NAME")  # which brings its CPU part in
    else:
        importlib.import_module("onnxruntime")
        missing(runtime)  # which brings the libraries of a GPU in


def open_session(model: Path | bytes, threads: int, provider: str = CPU) -> Any:
    """An onnxruntime.InferenceSession with that many intra-op threads.

    `model` is an ONNX file, or its bytes. Raises RuntimeMissing where `provider` is idle.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are about its own optimizer
    content = str(model) if isinstance(model, Path) else model
    if provider == CPU:
        return onnxruntime.InferenceSession(content, options, providers=[CPU])
    return open_on(provider, content, options)


def usable_cores() -> int:
    """The processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _OpenVino:
    """One image, and any number of them, are compiled apart, each when it first comes.

    A graph of known shape is faster: its normalisation is one kernel, and nothing is looked up
    anew at each run. The other one is compiled once for all numbers.
    """

    def __init__(self, model: Path | bytes, threads: int, outputs: Sequence[str]) -> None:
        self._model = _core().read_model(model)
        self._image = tuple(
            side.get_length() for side in self._model.input(INPUT).partial_shape[1:]
        )
        known = [output.get_any_name() for output in self._model.outputs]
        self._threads, self._outputs = threads, _named(known, outputs)
        self._compiled: dict[int, _Compiled] = {}
        self._lock = threading.Lock()  # with one stream, requests run one after the other anyway

    def __call__(self, images: Pixels) -> list[Floats]:
        if images.dtype != np.uint8 or images.shape[1:] != self._image:
            wanted = "×".join(map(str, self._image))
            raise ValueError(f"the images are {images.dtype} {images.shape}, not uint8 N×{wanted}")
        if len(images) == 0:  # which OpenVINO answers with what was there, and then crashes
            return [part[:0] for part in self(np.zeros((1, *self._image), np.uint8))]
        count = 1 if len(images) == 1 else -1
        with self._lock:
            if count not in self._compiled:
                shape = [count, *self._image]
                self._compiled[count] = _Compiled(self._model, shape, self._threads, self._outputs)
            return self._compiled[count].run(images)


class _Compiled:
    """A graph for inputs of one shape, of any first dimension where that is -1; for one thread."""

    def __init__(
        self, model: Any, shape: Sequence[int], threads: int, outputs: Sequence[str]
    ) -> None:
        of_shape = model.clone()
        of_shape.reshape(list(shape))
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            # Else all processes with one thread run on the first core, the caller's thread too.
            "ENABLE_CPU_PINNING": False,
            # Else bfloat16 or float16, and int8 of what stores int8 weights, where it has them.
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        compiled = _core().compile_model(of_shape, "CPU", options)
        self._request = compiled.create_infer_request()
        self._input = self._request.get_tensor(compiled.input(INPUT))
        self._ports = [compiled.output(name) for name in outputs]

    def run(self, images: Pixels) -> list[Floats]:
        """Named outputs, copied out of the request's own memory, which the next run overwrites."""
        self._input.shape = images.shape
        self._input.data[:] = images
        self._request.infer()
        return [self._request.get_tensor(port).data.copy() for port in self._ports]


@cache
def _core() -> Any:
    """OpenVINO's entry, one in a process as it recommends.

    Importing it would fork a process that reports the import to a web service, and write files
    to the home directory: without its telemetry package, which is hidden meanwhile, it does not.
    """
    hidden = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules["openvino_telemetry"]
        if hidden is not None:
            sys.modules["openvino_telemetry"] = hidden
    return openvino.Core()


def _listed() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _named(known: list[str], wanted: Sequence[str]) -> list[str]:
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise ValueError(f"the model has no output {', '.join(missing)}")
    return list(wanted) or known
