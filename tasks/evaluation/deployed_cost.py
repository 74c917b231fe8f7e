"""What the graph to deploy costs: latency beside fp32 and its candidate, memory, cold start.

Folding calibration and a score in makes a graph slower and larger than the candidate that compress
measured. A file is measured once on a machine: later runs of the step find what was kept in
<home>/measured, so that the same inputs give the same bundle.
"""

import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from tasks.compression.candidates import Candidate
from tasks.compression.choose import misses
from tasks.compression.footprint import footprint
from tasks.compression.measure import Latency, Run, compare_latency, onnx_run
from tasks.data.shards import Shards
from tasks.evaluation.candidates import Candidates
from tasks.files import sha256, sha256_json, write_json
from tasks.params import Settings
from tasks.runtime import version_of_runtime
from tasks.schema import Budget

_DEPLOYED, _CANDIDATE, _FP32 = "deployed", "candidate", "fp32"
# The gate's rule on each limit that is measured of the deployed file.
_RULES = {"max_latency_ms": "latency", "max_size_mb": "size", "max_memory_mb": "memory"}
_SECONDS, _FEWEST = 2.0, 20  # of timed runs in ten rounds together, and how many at least
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """Of the deployed file on its runtime, at batch 1; the ratios of latencies are to fp32."""

    deployed: Latency
    candidate: Latency
    """Of the graph before anything was folded in, in the same rounds."""
    fp32: Latency
    noise: float
    rounds: int
    memory_bytes: int
    cold_start_ms: float
    size_bytes: int

    @property
    def of_folding(self) -> float:
        """The latency in parts of the candidate's."""
        return self.deployed.ratio / self.candidate.ratio

    def eager_ms(self, candidates: Candidates) -> float:
        """Eager fp32, which compress timed beside fp32, at the speed of fp32 in these rounds.

        So that "times as fast as eager" compares what shared a machine, whatever else ran on it.
        """
        then = candidates.named(candidates.fp32).latency_ms
        return candidates.eager_fp32_latency_ms * self.fp32.median_ms / then

    def as_metrics(self, candidate: Candidate) -> dict[str, Any]:
        """For data/metrics/evaluate.json; `candidate` has the figures of compress."""
        before = ("name", "latency_ms", "size_bytes", "memory_bytes")
        ratio = (self.deployed.ratio, self.deployed.ratio_low, self.deployed.ratio_high)
        return {
            "latency_ms": self.deployed.median_ms,
            "latency_p95_ms": self.deployed.p95_ms,
            "latency_ratio": dict(zip(("value", "low", "high"), ratio, strict=True)),
            "fp32_latency_ms": self.fp32.median_ms,
            "folding_latency_ratio": self.of_folding,
            "size_bytes": self.size_bytes,
            "memory_bytes": self.memory_bytes,
            "cold_start_ms": self.cold_start_ms,
            "candidate": {name: getattr(candidate, name) for name in before},
        }


_KEPT = TypeAdapter(Cost)


def deployed_cost(
    model: Path, candidates: Candidates, shards: Shards, runs: int, settings: Settings
) -> Cost:
    """Measure the folded graph at `model`, or read what was measured of this file before.

    At most `runs` timed runs in ten rounds, and fewer of what takes long; as in compress up to
    thirty more rounds where the machine is noisy.
    """
    path = settings.home / "measured" / f"{_identity(model, candidates, runs)}.json"
    try:
        found = _KEPT.validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        found = _measure(model, candidates, shards, runs)
        write_json(path, asdict(found))
        log.info(
            "timed the deployed graph in %d rounds: %.3g times its candidate's latency",
            found.rounds,
            found.of_folding,
        )
    return found


def budget_notes(cost: Cost, candidate: Candidate, fp32: Candidate, budget: Budget) -> list[str]:
    """What to say where the graph to deploy misses a limit of the budget; [] where it keeps all."""
    figures = {
        "latency_ms": cost.deployed.median_ms,
        "size_bytes": cost.size_bytes,
        "memory_bytes": cost.memory_bytes,
    }
    before = {miss.key for miss in misses(candidate, fp32, budget)}
    notes = []
    for miss in misses(candidate.model_copy(update=figures), fp32, budget):
        if miss.key not in _RULES:
            continue  # of validation accuracy, which compress has judged
        text = f"The graph to deploy misses the budget: {miss.text}."
        if miss.key not in before:
            text += f" Its candidate {candidate.name} kept it before calibration and a score of "
            text += "strangeness were folded in."
        notes.append(
            f"{text} gate.on_failure.{_RULES[miss.key]} says what follows. Relax the limit, or do "
            "without the score (evaluate.ood.enabled: false)."
        )
    return notes


def _identity(model: Path, candidates: Candidates, runs: int) -> str:
    """Names what the figures depend on: the files, how they are run, and the machine."""
    chosen, fp32 = (candidates.named(one) for one in (candidates.chosen, candidates.fp32))
    files = [model, candidates.file(chosen.name), candidates.file(fp32.name)]
    how = [[one.runtime, one.threads, version_of_runtime(one.runtime)] for one in (chosen, fp32)]
    return sha256_json([[sha256(file) for file in files], how, runs, platform.node()])


def _measure(model: Path, candidates: Candidates, shards: Shards, runs: int) -> Cost:
    chosen, fp32 = (candidates.named(one) for one in (candidates.chosen, candidates.fp32))
    image = np.ascontiguousarray(shards.split("validation").images[:1])
    how = chosen.threads, chosen.runtime
    functions = {
        _FP32: onnx_run(candidates.file(fp32.name), image, fp32.threads, fp32.runtime),
        _CANDIDATE: onnx_run(candidates.file(chosen.name), image, *how),
        _DEPLOYED: onnx_run(model, image, *how, outputs=()),  # all that it has: what is served
    }
    found = compare_latency(functions, _FP32, _times(functions, runs))
    taken = footprint(model, chosen.threads, image.shape, chosen.runtime)
    return Cost(
        **found.latency,
        noise=found.noise,
        rounds=found.rounds,
        memory_bytes=taken.libraries + taken.peak,
        cold_start_ms=taken.cold_start_ms,
        size_bytes=model.stat().st_size,
    )


def _times(functions: Mapping[str, Run], runs: int) -> int:
    """As many runs of each as take two seconds, no more than `runs` and a few at least."""
    started = 0.0
    for _ in range(2):  # the first run of each prepares it
        started = time.perf_counter()
        for run in functions.values():
            run()
    turn = time.perf_counter() - started
    return min(runs, max(_FEWEST, int(_SECONDS / turn)))
