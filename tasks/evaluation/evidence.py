"""Gathers the evidence: fp32 and the deployed graph on the frozen test images.

Takes logits and probabilities from the runtime of each, gives `Evidence`: everything the metrics
file, the report, the model card and the bundle say.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.data.shards import Shards, ShardSplit
from tasks.errors import CompressionError, DataError
from tasks.evaluation.calibration import Temperature, fit_temperature, fold_temperature
from tasks.evaluation.candidates import Candidates
from tasks.evaluation.decisions import Decided, decide
from tasks.evaluation.graph import run_graph
from tasks.evaluation.parts import Parts, measure_parts
from tasks.metrics.bootstrap import ScoredIntervals, paired_difference, score_intervals
from tasks.metrics.classification import Bools, Floats, Ints, confusion_matrix
from tasks.metrics.ranking import Ranked, ranked
from tasks.metrics.reliability import (
    Logits,
    Reliability,
    negative_log_likelihood,
    reliability,
    softmax,
)
from tasks.pixels import STATISTICS
from tasks.schema import Evaluate

_OUTPUTS = ("probabilities", "embedding")
_TOLERANCE = 1e-5  # of a probability: folding may cost float32 rounding, nothing more


@dataclass(frozen=True)
class Measured:
    """One model on the N test images of C classes."""

    name: str
    labels: Ints
    probabilities: Floats
    """Calibrated, N×C."""
    confusion: npt.NDArray[np.int64]
    scored: ScoredIntervals
    ranked: Ranked
    temperature: Temperature
    before: Reliability
    after: Reliability
    nll_before: float
    nll_after: float

    @cached_property
    def predicted(self) -> Ints:
        """Class indices int64 [N]."""
        return np.asarray(self.probabilities.argmax(1))

    @cached_property
    def correct(self) -> Bools:
        """Whether each image is classified right, [N]."""
        return np.asarray(self.predicted == self.labels)


@dataclass(frozen=True)
class Evidence:
    """What is known of the deployed model when it leaves training."""

    shards: Shards
    candidates: Candidates
    deployed: Measured
    fp32: Measured
    difference: tuple[float, float, float]
    """Accuracy of the deployed model minus fp32's: value, low, high."""
    reference: dict[str, npt.NDArray[Any]]
    """Test, then validation images as the deployed model sees them: reference.npz."""
    size_bytes: int
    decided: Decided
    parts: Parts

    @property
    def agreement(self) -> float:
        """Share of test images on which the deployed model and fp32 predict the same."""
        return float((self.deployed.predicted == self.fp32.predicted).mean())


def gather_evidence(
    shards: Shards, candidates: Candidates, params: Evaluate, model: Path
) -> Evidence:
    """Measure fp32 and the chosen candidate; write the graph to deploy to `model`.

    Raises DataError when the test or validation split is empty, CompressionError when a
    candidate does not fit the shards or the folded graph is not what it was folded from.
    """
    test, validation = _split(shards, "test"), _split(shards, "validation")
    fp32 = _measure_logits(shards, candidates, candidates.fp32, params)[0]
    chosen, logits = _measure_logits(shards, candidates, candidates.chosen, params)
    fold_temperature(candidates.file(candidates.chosen), chosen.temperature.value, model)
    runtime = candidates.named(candidates.chosen).runtime
    seen = [run_graph(model, part.images, _OUTPUTS, runtime) for part in (test, validation)]
    _check_folded(seen[0][0], softmax(logits, chosen.temperature.value), model)
    return Evidence(
        shards=shards,
        candidates=candidates,
        deployed=chosen,
        fp32=fp32,
        difference=paired_difference(
            fp32.correct, chosen.correct, params.resamples, params.confidence, params.seed
        ),
        reference=_reference(seen, (test, validation)),
        size_bytes=model.stat().st_size,
        decided=decide(
            (seen[1][0], np.asarray(validation.labels)), (seen[0][0], chosen.labels), params
        ),
        parts=measure_parts(shards, candidates, chosen, params),
    )


def measure(
    name: str, labels: Ints, logits: Logits, fitted: Temperature, params: Evaluate
) -> Measured:
    """Score logits N×C against the labels [N] of the test split, at a fitted temperature."""
    before, after = softmax(logits), softmax(logits, fitted.value)
    confusion = confusion_matrix(labels, after.argmax(1), after.shape[1])
    return Measured(
        name=name,
        labels=labels,
        probabilities=after,
        confusion=confusion,
        scored=score_intervals(confusion, params.resamples, params.confidence, params.seed),
        ranked=ranked(after, labels),
        temperature=fitted,
        before=reliability(before, labels, params.calibration_bins),
        after=reliability(after, labels, params.calibration_bins),
        nll_before=negative_log_likelihood(logits, labels),
        nll_after=negative_log_likelihood(logits, labels, fitted.value),
    )


def _measure_logits(
    shards: Shards, candidates: Candidates, name: str, params: Evaluate
) -> tuple[Measured, Logits]:
    path, runtime = candidates.file(name), candidates.named(name).runtime
    logits = {}
    for split in ("validation", "test"):
        (logits[split],) = run_graph(path, shards.split(split).images, ["logits"], runtime)
    if logits["test"].shape[1] != len(shards.classes):
        raise CompressionError(
            f"{path} tells {logits['test'].shape[1]} classes apart, the shards hold "
            f"{len(shards.classes)}; `dvc repro compress` brings them together"
        )
    fitted = fit_temperature(logits["validation"], np.asarray(shards.split("validation").labels))
    test = np.asarray(shards.split("test").labels)
    return measure(name, test, logits["test"], fitted, params), logits["test"]


def _split(shards: Shards, name: str) -> ShardSplit:
    split = shards.split(name)
    if not len(split):
        raise DataError(
            f"the {name} split holds no images, so nothing can be said of the model; "
            f"add images or raise split.{name} in conf/params.yaml"
        )
    return split


def _check_folded(deployed: npt.NDArray[np.float32], expected: Floats, model: Path) -> None:
    gap = float(np.abs(deployed - expected).max())
    if gap > _TOLERANCE:
        raise CompressionError(
            f"{model.name}: probabilities differ by {gap:.2g} from softmax(logits / T); the "
            "candidate does not give the same logits twice"
        )


def _reference(
    seen: list[list[npt.NDArray[np.float32]]], splits: tuple[ShardSplit, ...]
) -> dict[str, npt.NDArray[Any]]:
    return {
        "probabilities": np.concatenate([part[0] for part in seen]),
        "embedding": np.concatenate([part[1] for part in seen]),
        "statistics": np.concatenate([split.statistics for split in splits]),
        "labels": np.concatenate([split.labels for split in splits]),
        "hashes": np.concatenate([split.hashes for split in splits]),
        "statistic_names": np.array(STATISTICS),
    }
