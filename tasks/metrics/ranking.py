"""Scores that look at all probabilities: top-k accuracy, ROC and precision-recall areas, Brier.

Takes probabilities float N×C and labels int [N]. What is not defined is NaN: the areas of a class
that no test image has, or every one.
"""

from dataclasses import dataclass

import numpy as np

from tasks.metrics.classification import Floats, Ints

TOP = (2, 3, 5)


@dataclass(frozen=True)
class Ranked:
    """What the probabilities of a model are worth; areas are float64 [C]."""

    top: dict[int, float]
    roc_auc: Floats
    average_precision: Floats
    brier: float

    @property
    def macro_roc_auc(self) -> float:
        """The mean over the classes where it is defined; NaN when it is nowhere."""
        return _mean(self.roc_auc)

    @property
    def macro_average_precision(self) -> float:
        """The same of the average precision."""
        return _mean(self.average_precision)


def ranked(probabilities: Floats, labels: Ints) -> Ranked:
    """All of it."""
    roc, precision = areas(probabilities, labels)
    top = top_k_accuracy(probabilities, labels)
    return Ranked(top, roc, precision, brier_score(probabilities, labels))


def top_k_accuracy(probabilities: Floats, labels: Ints) -> dict[int, float]:
    """How often the label is among the k most probable classes, for every k of TOP below C.

    Classes as probable as the label share the places with it: a constant model gains nothing.
    """
    own = probabilities[np.arange(len(labels)), labels][:, None]
    above = (probabilities > own).sum(1)
    ties = (probabilities == own).sum(1)  # the label itself is one of them
    found = {}
    for k in (k for k in TOP if k < probabilities.shape[1]):
        found[k] = float((np.clip(k - above, 0, ties) / ties).mean())
    return found


def areas(probabilities: Floats, labels: Ints) -> tuple[Floats, Floats]:
    """Each class against the rest: area under ROC, and average precision, float64 [C] both."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    roc = np.full(probabilities.shape[1], np.nan)
    precision = roc.copy()
    for index in range(probabilities.shape[1]):
        positive = labels == index
        if 0 < positive.sum() < len(labels):
            roc[index] = roc_auc_score(positive, probabilities[:, index])
            precision[index] = average_precision_score(positive, probabilities[:, index])
    return roc, precision


def brier_score(probabilities: Floats, labels: Ints) -> float:
    """Mean over images of the squared distance from the truth (Brier 1950), 0 to 2."""
    truth = np.zeros(probabilities.shape)
    truth[np.arange(len(labels)), labels] = 1
    return float(((probabilities - truth) ** 2).sum(1).mean())


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
