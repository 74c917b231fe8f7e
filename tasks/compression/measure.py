"""Latency side by side: every candidate in every round, so that all see the same machine."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.pixels import Pixels
from tasks.runtime import RuntimeName, open_model, usable_cores

if TYPE_CHECKING:
    from tasks.training.models import Classifier, ModelSpec

_ROUNDS = 10
_MOST_ROUNDS = 40
_WARM_UP, _WARM_UP_SECONDS = 3, 0.05  # at the head of each block: caches, the others' threads
_WORTH = 0.9  # more threads must bring latency below this share of one thread's
_TIGHT = 0.02  # half the width of a ratio's interval at which measuring stops
_T = 2.0  # about the 97.5 % quantile of Student's t for ten rounds and more

Run = Callable[[], object]
Blocks = dict[str, list[list[float]]]  # seconds of each run, by name and round


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call; the ratio is to the reference, with its 95 % interval."""

    median_ms: float
    p95_ms: float
    ratio: float = 1.0
    ratio_low: float = 1.0
    ratio_high: float = 1.0


@dataclass(frozen=True)
class Comparison:
    """Latencies by name; `noise` is how far the reference's rounds lie apart, as a share."""

    latency: dict[str, Latency]
    noise: float
    rounds: int


def measure_latency(runs: Mapping[str, Run], times: int) -> dict[str, Latency]:
    """Time each function at least `times` times, in interleaved rounds, after a warm-up."""
    blocks: Blocks = {name: [] for name in runs}
    for _ in range(_ROUNDS):
        _round(runs, -(-times // _ROUNDS), blocks)
    return {name: _latency(rounds) for name, rounds in blocks.items()}


def compare_latency(runs: Mapping[str, Run], reference: str, times: int) -> Comparison:
    """As `measure_latency`, in ten rounds or as many more as the ratios need, up to forty.

    A round's ratio is that of the two medians in it, so what the machine does for longer than a
    round cancels. Measuring ends when the interval of each ratio (Student's t over the logarithms
    of the rounds) is no wider than 2 % either way.
    """
    blocks: Blocks = {name: [] for name in runs}
    for number in range(1, _MOST_ROUNDS + 1):
        _round(runs, -(-times // _ROUNDS), blocks)
        if number >= _ROUNDS:
            ratios = {name: _ratio(rounds, blocks[reference]) for name, rounds in blocks.items()}
            if all(half <= _TIGHT for _, half in ratios.values()):
                break
    medians = np.array([np.median(block) for block in blocks[reference]])
    low, middle, high = np.percentile(medians, [25, 50, 75])
    found = {name: _latency(rounds, ratios[name]) for name, rounds in blocks.items()}
    return Comparison(found, float((high - low) / middle), number)


def onnx_run(
    path: Path,
    image: Pixels,
    threads: int,
    runtime: RuntimeName = "onnxruntime",
    outputs: Sequence[str] = ("logits",),
) -> Run:
    """Images, uint8 N×S×S×3, through an ONNX file to those outputs, or to all for ()."""
    run = open_model(path, runtime, threads, outputs)
    return lambda: run(image)


def eager_run(model: "Classifier", spec: "ModelSpec", image: Pixels) -> Run:
    """The same work in eager PyTorch fp32: from uint8 pixels to logits."""
    import torch  # seconds: only where it is timed

    from tasks.training.models import normalise

    pixels = torch.from_numpy(image)
    model.eval()

    def run() -> object:
        with torch.inference_mode():
            return model(normalise(pixels, spec))

    return run


def choose_threads(
    path: Path, image: Pixels, times: int, runtime: RuntimeName = "onnxruntime"
) -> int:
    """Intra-op threads for this network here: one, unless all cores are clearly faster."""
    cores = usable_cores()
    if cores == 1:
        return 1
    runs = {str(count): onnx_run(path, image, count, runtime) for count in (1, cores)}
    latency = measure_latency(runs, times)
    faster = latency[str(cores)].median_ms < _WORTH * latency["1"].median_ms
    return cores if faster else 1


def _round(runs: Mapping[str, Run], block: int, blocks: Blocks) -> None:
    for name, run in runs.items():
        _warm_up(run)
        blocks[name].append([_timed(run) for _ in range(block)])


def _warm_up(run: Run) -> None:
    """Three runs, or fewer of what takes long: one such run has forgotten what was before it."""
    taken = 0.0
    for _ in range(_WARM_UP):
        taken += _timed(run)
        if taken > _WARM_UP_SECONDS:
            return


def _timed(run: Run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _ratio(rounds: list[list[float]], reference: list[list[float]]) -> tuple[float, float]:
    """The mean of the logarithms of the rounds' ratios, and half the width of its interval."""
    logs = [
        np.log(np.median(own) / np.median(other))
        for own, other in zip(rounds, reference, strict=True)
    ]
    return float(np.mean(logs)), float(_T * np.std(logs, ddof=1) / np.sqrt(len(logs)))


def _latency(rounds: list[list[float]], ratio: tuple[float, float] = (0.0, 0.0)) -> Latency:
    median, p95 = np.percentile(np.concatenate(rounds) * 1e3, [50, 95])
    mean, half = ratio
    ends = (float(np.exp(mean + side)) for side in (0.0, -half, half))
    return Latency(float(median), float(p95), *ends)
