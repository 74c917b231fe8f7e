"""Champion against challenger on the same frozen test images: the gate's evidence.

Takes class indices from two models, gives what changed; who is promoted is the
registry's decision.
"""

from dataclasses import dataclass

import numpy as np

from tasks.metrics.bootstrap import paired_difference
from tasks.metrics.classification import Bools, Ints, recall_by_class
from tasks.schema import Gate

__all__ = ["Comparison", "compare", "mcnemar", "paired_difference", "recall_by_class"]


@dataclass(frozen=True)
class Comparison:
    """What changes when the challenger replaces the champion. Shares are in 0..1."""

    images: int
    champion_accuracy: float
    challenger_accuracy: float
    difference: float
    """Challenger minus champion."""
    low: float
    high: float
    """Its paired bootstrap bounds: each holds with the confidence of the gate (one-sided)."""
    p_value: float
    """Of McNemar's exact test (1947): equally good models differ so much, either way, so often."""
    not_worse: bool
    """The lower bound stays above minus the margin (non-inferiority)."""
    recall_change: dict[str, float | None]
    """By class, challenger minus champion; None for a class without test images."""
    dropped_classes: tuple[str, ...]
    """Classes whose recall falls by more than `gate.max_recall_drop`, worst first."""


def compare(
    champion_predictions: Ints,
    challenger_predictions: Ints,
    labels: Ints,
    classes: list[str] | tuple[str, ...],
    params: Gate,
) -> Comparison:
    """Compare predicted class indices [N] of two models with the labels [N].

    Raises ValueError when the three differ in length or are empty.
    """
    if len(champion_predictions) != len(labels) or len(challenger_predictions) != len(labels):
        raise ValueError("champion, challenger and labels must be of the same images")
    old, new = champion_predictions == labels, challenger_predictions == labels
    difference, low, high = paired_difference(
        old, new, params.resamples, 2 * params.confidence - 1, params.seed
    )
    change = recall_by_class(challenger_predictions, labels, len(classes)) - recall_by_class(
        champion_predictions, labels, len(classes)
    )
    # A hair of tolerance: 0.9 - 1.0 is not exactly -0.1.
    dropped = [int(i) for i in np.argsort(change) if change[i] < -params.max_recall_drop - 1e-9]
    return Comparison(
        images=len(labels),
        champion_accuracy=float(old.mean()),
        challenger_accuracy=float(new.mean()),
        difference=difference,
        low=low,
        high=high,
        p_value=mcnemar(old, new),
        not_worse=low >= -params.margin - 1e-9,
        recall_change={
            name: None if np.isnan(value) else float(value)
            for name, value in zip(classes, change, strict=True)
        },
        dropped_classes=tuple(classes[i] for i in dropped),
    )


def mcnemar(old: Bools, new: Bools) -> float:
    """The p-value of McNemar's exact test (1947): both [N], right or wrong on the same images."""
    from scipy.stats import binomtest

    better, worse = int((new & ~old).sum()), int((old & ~new).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
