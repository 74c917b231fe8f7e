"""When the deployed model answers: chosen on validation images, measured on test images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.decision import Decision
from tasks.metrics.abstention import (
    CERTAINTY,
    Probabilities,
    RiskCoverage,
    prediction_sets,
    risk_coverage,
    set_threshold,
    threshold_for_coverage,
    threshold_for_risk,
)
from tasks.metrics.bootstrap import share_interval
from tasks.metrics.classification import Ints
from tasks.pages.render import percent
from tasks.schema import Abstention, Evaluate

Predictions = tuple[Probabilities, Ints]  # probabilities N×C, labels [N]


@dataclass(frozen=True)
class Decided:
    """The thresholds, and what they do on the test images."""

    decision: Decision
    note: str | None
    """Why there is no threshold though one was asked for."""
    curve: RiskCoverage
    coverage: float
    risk: float
    """Of the answers that are given; NaN when none is."""
    held: tuple[float, float, float]
    """How often the sets hold the true class, with its interval."""
    set_sizes: Ints
    """Test images by the size of their set, from 0: int64 [C + 1]."""

    @property
    def mean_size(self) -> float:
        """Classes in a set."""
        sizes = np.arange(len(self.set_sizes))
        return float((sizes * self.set_sizes).sum() / self.set_sizes.sum())

    @property
    def single(self) -> float:
        """Share of images whose set is one class."""
        return float(self.set_sizes[1] / self.set_sizes.sum())

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json; null where not defined."""
        return {
            "abstain_below": self.decision.abstain_below,
            "answered": self.coverage,
            "wrong_among_answered": self.risk if np.isfinite(self.risk) else None,
            "area_under_risk_coverage": self.curve.area,
            "prediction_sets": {
                "from_probability": self.decision.set_from,
                "hold_the_true_class": dict(zip(("value", "low", "high"), self.held, strict=True)),
                "asked_for": self.decision.set_coverage,
                "mean_size": self.mean_size,
                "of_one_class": self.single,
            },
        }


def decide(
    validation: Predictions, test: Predictions, params: Evaluate, strange_from: float | None = None
) -> Decided:
    """Choose the thresholds on validation images and measure them on test images.

    `strange_from` is one that was chosen already (tasks.evaluation.ood): it abstains from nothing.
    """
    threshold, note = _abstain_below(validation, params.abstention)
    set_from = set_threshold(*validation, params.set_coverage)
    probabilities, labels = test
    curve = risk_coverage(probabilities.max(1), probabilities.argmax(1) == labels)
    coverage, risk = curve.at(0.0 if threshold is None else threshold)
    sets = prediction_sets(probabilities, set_from)
    return Decided(
        decision=Decision(
            abstain_below=threshold,
            set_from=set_from,
            set_coverage=params.set_coverage,
            strange_from=strange_from,
        ),
        note=note,
        curve=curve,
        coverage=coverage,
        risk=risk,
        held=share_interval(sets[np.arange(len(labels)), labels], params.confidence),
        set_sizes=np.bincount(sets.sum(1), minlength=probabilities.shape[1] + 1),
    )


def _abstain_below(validation: Predictions, asked: Abstention) -> tuple[float | None, str | None]:
    probabilities, labels = validation
    confidence = probabilities.max(1)
    if asked.coverage is not None:
        return threshold_for_coverage(confidence, asked.coverage), None
    if asked.risk is None:
        return None, None
    curve = risk_coverage(confidence, probabilities.argmax(1) == labels)
    threshold = threshold_for_risk(curve, len(labels), asked.risk)
    if threshold is None:
        return None, (
            f"No threshold keeps the share of wrong answers below {percent(asked.risk)} with "
            f"{percent(CERTAINTY, 0)} certainty on {len(labels):,} validation images, so the model "
            "never abstains; raise evaluate.abstention.risk, or validate on more images."
        )
    return threshold, None
