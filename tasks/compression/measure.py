"""Latency side by side: every candidate in every round, so that all see the same machine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tasks.pixels import Pixels
from tasks.runtime import RuntimeName, open_model, usable_cores
from tasks.training.models import Classifier, ModelSpec, normalise

_ROUNDS = 10
_WARM_UP = 3  # runs at the head of each block: caches, and the other candidates' threads
_WORTH = 0.9  # more threads must bring latency below this share of one thread's

Run = Callable[[], object]


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call."""

    median_ms: float
    p95_ms: float


def measure_latency(runs: Mapping[str, Run], times: int) -> dict[str, Latency]:
    """Time each function at least `times` times, in interleaved rounds, after a warm-up."""
    block = -(-times // _ROUNDS)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            for _ in range(_WARM_UP):
                run()
            seconds[name] += [_timed(run) for _ in range(block)]
    return {name: _latency(values) for name, values in seconds.items()}


def onnx_run(path: Path, image: Pixels, threads: int, runtime: RuntimeName = "onnxruntime") -> Run:
    """One image, uint8 1×S×S×3, through an ONNX file to its logits."""
    run = open_model(path, runtime, threads, ["logits"])
    return lambda: run(image)


def eager_run(model: Classifier, spec: ModelSpec, image: Pixels) -> Run:
    """The same work in eager PyTorch fp32: from uint8 pixels to logits."""
    pixels = torch.from_numpy(image)
    model.eval()

    def run() -> object:
        with torch.inference_mode():
            return model(normalise(pixels, spec))

    return run


def choose_threads(path: Path, image: Pixels, times: int) -> int:
    """Intra-op threads for this network here: one, unless all cores are clearly faster."""
    cores = usable_cores()
    if cores == 1:
        return 1
    runs = {str(count): onnx_run(path, image, count) for count in (1, cores)}
    latency = measure_latency(runs, times)
    faster = latency[str(cores)].median_ms < _WORTH * latency["1"].median_ms
    return cores if faster else 1


def _timed(run: Run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _latency(seconds: list[float]) -> Latency:
    median, p95 = np.percentile(np.array(seconds) * 1e3, [50, 95])
    return Latency(float(median), float(p95))
