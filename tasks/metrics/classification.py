"""Classification scores from counts, for one confusion or for thousands of resampled ones.

Takes true positives, support and predictions per class (any leading dimensions), gives
`Scores`. What is not defined is NaN, never a silent zero: the recall of a class without
test images, the precision of a class that is never predicted.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """Shares in 0..1 or NaN. Overall ones have shape [...], per-class ones [..., C].

    Means over classes run over the classes with test images, all alike or weighted by them; the
    mean precision leaves out those never predicted, whose F1 counts as 0 (scikit-learn's
    `zero_division=nan`). Kappa (Cohen 1960) is the agreement beyond chance, from -1 to 1.
    """

    accuracy: Floats
    balanced_accuracy: Floats
    macro_precision: Floats
    macro_recall: Floats
    macro_f1: Floats
    weighted_precision: Floats
    weighted_f1: Floats
    kappa: Floats
    precision: Floats
    recall: Floats
    f1: Floats


OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_f1",
    "kappa",
)
PER_CLASS = ("precision", "recall", "f1")


def confusion_matrix(labels: Ints, predicted: Ints, n_classes: int) -> npt.NDArray[np.int64]:
    """Counts int64 C×C: row the actual class, column the predicted one."""
    cells = labels.astype(np.int64) * n_classes + predicted
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def scores(hits: Ints, support: Ints, predicted: Ints) -> Scores:
    """Scores from per-class counts [..., C]: true positives, images, predictions."""
    present = support > 0
    recall = _ratio(hits, support)
    precision = _ratio(hits, predicted)
    f1 = np.where(present, _ratio(2 * hits, support + predicted), np.nan)
    macro_recall = _mean(recall)
    accuracy = _ratio(hits.sum(-1), np.broadcast_to(support.sum(-1), hits.shape[:-1]))
    return Scores(
        accuracy=accuracy,
        balanced_accuracy=macro_recall,
        macro_precision=_mean(np.where(present, precision, np.nan)),
        macro_recall=macro_recall,
        macro_f1=_mean(f1),
        weighted_precision=_weighted(np.where(present, precision, np.nan), support),
        weighted_f1=_weighted(f1, support),
        kappa=_kappa(accuracy, support, predicted),
        precision=precision,
        recall=recall,
        f1=f1,
    )


def scores_of(confusion: Ints) -> Scores:
    """Scores of one confusion matrix C×C."""
    return scores(np.diag(confusion), confusion.sum(1), confusion.sum(0))


def recall_by_class(predicted: Ints, labels: Ints, n_classes: int) -> Floats:
    """Share of each class's images that are found, float64 [C]; NaN for a class without any."""
    return scores_of(confusion_matrix(labels, predicted, n_classes)).recall


def chance_agreement(support: Ints, predicted: Ints) -> Floats:
    """How often labels and predictions of these counts [..., C] agree by chance alone."""
    images = support.sum(-1, dtype=np.float64)
    both = (support.astype(np.float64) * predicted).sum(-1)
    return np.asarray(both / np.maximum(images, 1) ** 2)


def _kappa(accuracy: Floats, support: Ints, predicted: Ints) -> Floats:
    chance = chance_agreement(support, predicted)
    with np.errstate(invalid="ignore", divide="ignore"):  # of one class only it is not defined
        return np.where(chance < 1, (accuracy - chance) / (1 - chance), np.nan)


def _weighted(values: Floats, support: Ints) -> Floats:
    """The mean over classes, weighted by their images, of the values that are defined."""
    known = np.isfinite(values)
    weights = np.where(known, support, 0).astype(np.float64)
    total = weights.sum(-1)
    summed = (np.where(known, values, 0) * weights).sum(-1)
    return np.where(total > 0, summed / np.maximum(total, 1), np.nan)


def _ratio(part: Ints, whole: Ints) -> Floats:
    part, whole = np.broadcast_arrays(part, whole)
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _mean(values: Floats) -> Floats:
    with warnings.catch_warnings():  # the mean of nothing is NaN, as it should be
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=-1))
