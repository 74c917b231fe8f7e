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

from tasks.data.shards import Shards
from tasks.errors import DataError
from tasks.evaluation.calibration import Calibration, alike
from tasks.evaluation.candidates import Candidates
from tasks.evaluation.decisions import Decided, decide
from tasks.evaluation.deployed import HELD_OUT, Deployed, check_classes, deploy
from tasks.evaluation.deployed_cost import Cost, budget_notes, deployed_cost
from tasks.evaluation.folding import LOGITS
from tasks.evaluation.graph import open_graph
from tasks.evaluation.parts import Parts, measure_parts
from tasks.evaluation.temperature import Temperature
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
from tasks.params import Settings
from tasks.pixels import STATISTICS
from tasks.schema import Evaluate, Params


@dataclass(frozen=True)
class Measured:
    """One model on the N test images of C classes."""

    name: str
    labels: Ints
    probabilities: Floats
    """Calibrated, N×C; of the deployed model those of its graph."""
    confusion: npt.NDArray[np.int64]
    scored: ScoredIntervals
    ranked: Ranked
    calibration: Calibration
    before: Reliability
    after: Reliability
    nll_before: float
    nll_after: float

    @property
    def temperature(self) -> Temperature:
        """The one that calibration begins with, whatever its method."""
        return self.calibration.calibrator.temperature

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
    cost: Cost
    missed: list[str]
    """What to say of each limit of the budget that the deployed graph misses."""
    decided: Decided
    parts: Parts

    @property
    def agreement(self) -> float:
        """Share of test images on which the deployed model and fp32 predict the same."""
        return float((self.deployed.predicted == self.fp32.predicted).mean())


def gather_evidence(
    shards: Shards, candidates: Candidates, all_params: Params, settings: Settings, model: Path
) -> Evidence:
    """Measure fp32 and the chosen candidate; write the graph to deploy to `model`, and time it.

    Raises DataError when the test or validation split is empty, CompressionError when a
    candidate does not fit the shards or the folded graph is not what it was folded from.
    """
    _check_held_out(shards)
    params, chosen = all_params.evaluate, candidates.named(candidates.chosen)
    made = deploy(shards, candidates, params, model)
    cost = deployed_cost(model, candidates, shards, all_params.compress.latency_runs, settings)
    truth = {name: np.asarray(shards.split(name).labels) for name in HELD_OUT}
    probabilities = {name: outputs[0] for name, outputs in made.seen.items()}
    logits, name = made.before["test"][0], chosen.name
    deployed = measure(name, truth["test"], logits, made.calibration, params, probabilities["test"])
    fp32 = _measure_fp32(shards, candidates, made.calibration, params)
    return Evidence(
        shards=shards,
        candidates=candidates,
        deployed=deployed,
        fp32=fp32,
        difference=paired_difference(
            fp32.correct, deployed.correct, params.resamples, params.confidence, params.seed
        ),
        reference=_reference(shards, made),
        cost=cost,
        missed=budget_notes(cost, chosen, candidates.named(candidates.fp32), all_params.budget),
        decided=decide(
            (probabilities["validation"], truth["validation"]),
            (probabilities["test"], truth["test"]),
            params,
            made.strange_from,
        ),
        parts=measure_parts(shards, candidates, deployed, made.strangeness(shards, params), params),
    )


def measure(
    name: str,
    labels: Ints,
    logits: Logits,
    calibration: Calibration,
    params: Evaluate,
    probabilities: Logits | None = None,
) -> Measured:
    """Score logits N×C against the labels [N] of the test split, as they are calibrated.

    `probabilities` N×C are the deployed graph's own, where there is one: they decide the class.
    """
    logarithms = calibration.calibrator.logarithms(logits)
    after = np.exp(logarithms) if probabilities is None else probabilities.astype(np.float64)
    confusion = confusion_matrix(labels, after.argmax(1), after.shape[1])
    return Measured(
        name=name,
        labels=labels,
        probabilities=after,
        confusion=confusion,
        scored=score_intervals(confusion, params.resamples, params.confidence, params.seed),
        ranked=ranked(after, labels),
        calibration=calibration,
        before=reliability(softmax(logits), labels, params.calibration_bins),
        after=reliability(after, labels, params.calibration_bins),
        nll_before=negative_log_likelihood(logits, labels),
        nll_after=float(-logarithms[np.arange(len(labels)), labels].mean()),
    )


def _measure_fp32(
    shards: Shards, candidates: Candidates, deployed: Calibration, params: Evaluate
) -> Measured:
    """fp32, calibrated by the method that the deployed model is."""
    path, runtime = candidates.file(candidates.fp32), candidates.named(candidates.fp32).runtime
    run = open_graph(path, [LOGITS], runtime)
    test, validation = shards.split("test"), shards.split("validation")
    (logits,), (known,) = run(test.images), run(validation.images)
    check_classes(logits, shards, path)
    calibration = alike(deployed, known, np.asarray(validation.labels))
    return measure(candidates.fp32, np.asarray(test.labels), logits, calibration, params)


def _check_held_out(shards: Shards) -> None:
    for name in HELD_OUT:
        if not len(shards.split(name)):
            raise DataError(
                f"the {name} split holds no images, so nothing can be said of the model; "
                f"add images or raise split.{name} in conf/params.yaml"
            )


def _reference(shards: Shards, made: Deployed) -> dict[str, npt.NDArray[Any]]:
    seen = [made.seen[name] for name in HELD_OUT]
    splits = [shards.split(name) for name in HELD_OUT]
    return {
        "probabilities": np.concatenate([part[0] for part in seen]),
        "embedding": np.concatenate([part[1] for part in seen]),
        "statistics": np.concatenate([split.statistics for split in splits]),
        "labels": np.concatenate([split.labels for split in splits]),
        "hashes": np.concatenate([split.hashes for split in splits]),
        "statistic_names": np.array(STATISTICS),
    }
