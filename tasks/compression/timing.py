"""What candidates cost: latency beside fp32 and eager PyTorch, throughput, memory, cold start."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.compression.candidates import Candidate
from tasks.compression.context import Context
from tasks.compression.footprint import footprint
from tasks.compression.measure import (
    Latency,
    Run,
    choose_threads,
    compare_latency,
    eager_run,
    measure_latency,
    onnx_run,
)
from tasks.compression.networks import FP32
from tasks.pixels import Pixels

EAGER = "eager"
_SHORT, _FEWEST = 10, 10  # times fewer runs tell one thread from many than candidates apart
_BATCH_SECONDS = 0.3  # a candidate, of the larger batch
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """The candidates with their costs; of eager PyTorch, milliseconds at batch 1."""

    candidates: list[Candidate]
    eager_ms: float
    noise: float
    rounds: int


def timed(candidates: Sequence[Candidate], context: Context, batch: int) -> Timing:
    """Measure all candidates in turn, at batch 1 and at `batch`, each with its own threads."""
    candidates = [_with_threads(candidate, context) for candidate in candidates]
    one = _images(context, 1)
    runs = _runs(candidates, context, one) | {EAGER: eager_run(context.teacher, context.spec, one)}
    found = compare_latency(runs, FP32, context.params.latency_runs)
    log.info(
        "timed %d candidates in %d rounds; fp32's medians lie %.1f %% apart",
        len(candidates),
        found.rounds,
        100 * found.noise,
    )
    many = _batch_latency(_runs(candidates, context, _images(context, batch)))
    shape = (1, context.spec.size, context.spec.size, 3)
    measured = []
    for candidate in candidates:
        path = context.folder / candidate.file
        taken = footprint(path, candidate.threads, shape, candidate.runtime)
        milliseconds = many[candidate.name].median_ms
        update = _latency_fields(found.latency[candidate.name]) | {
            "batch_latency_ms": milliseconds,
            "images_per_second": 1e3 * batch / milliseconds,
            "memory_bytes": taken.libraries + taken.peak,
            "cold_start_ms": taken.cold_start_ms,
        }
        measured.append(candidate.model_copy(update=update))
    return Timing(measured, found.latency[EAGER].median_ms, found.noise, found.rounds)


def _with_threads(candidate: Candidate, context: Context) -> Candidate:
    path, image = context.folder / candidate.file, _images(context, 1)
    times = max(_FEWEST, context.params.latency_runs // _SHORT)
    return candidate.model_copy(
        update={"threads": choose_threads(path, image, times, candidate.runtime)}
    )


def _runs(candidates: Sequence[Candidate], context: Context, images: Pixels) -> dict[str, Run]:
    return {candidate.name: _run(candidate, context, images) for candidate in candidates}


def _run(candidate: Candidate, context: Context, images: Pixels) -> Run:
    path = context.folder / candidate.file
    return onnx_run(path, images, candidate.threads, candidate.runtime)


def _images(context: Context, count: int) -> Pixels:
    """The first validation images, from the start again when there are fewer."""
    rows = np.arange(count) % len(context.validation.labels)
    return np.ascontiguousarray(context.validation.images[rows])


def _batch_latency(runs: Mapping[str, Run]) -> dict[str, Latency]:
    """Ten rounds of as many runs as take a second together, one a round at least."""
    slowest = 0.0
    for run in runs.values():
        run()
        started = time.perf_counter()
        run()
        slowest = max(slowest, time.perf_counter() - started)
    return measure_latency(runs, max(1, int(_BATCH_SECONDS / slowest)))


def _latency_fields(latency: Latency) -> dict[str, float]:
    return {
        "latency_ms": latency.median_ms,
        "latency_p95_ms": latency.p95_ms,
        "latency_ratio": latency.ratio,
        "latency_ratio_low": latency.ratio_low,
        "latency_ratio_high": latency.ratio_high,
    }
