"""Which labels are probably wrong, from the probabilities of models that never saw the image.

Confident learning (Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty
in Dataset Labels"), by rank and prune. How many: a class's threshold is how sure the models are of
it, on average, of the images that carry its label; an image is counted for the class it is surest
of among those whose threshold it passes; of each label the share counted for another class is
taken for its share of errors. Which: the worst so many by self-confidence, what the models give
the label, once each class's probabilities are scaled so that the class is as frequent among the
predictions as among the labels (the first step of Saerens, Latinne & Decaestecker 2002): a model
that gives one class too little would have all its images suspected.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.errors import DataError
from tasks.metrics.classification import Bools, Floats, Ints

_CELLS = 1 << 20  # of N×C at a time: the temporary arrays stay within some ten megabytes
_ROUNDING = 1e-6  # of probabilities in float32, and of their means


@dataclass(frozen=True)
class LabelErrors:
    """One entry an image, [N]; an excluded image is no suspect, and its suspicion is NaN."""

    suspicion: Floats  # higher is worse; it orders all images, suspects or not
    suspect: Bools
    likelier: npt.NDArray[np.int64]  # the best other class; the label where there is no other


@dataclass(frozen=True)
class _Counts:
    """Per class [C]: images with that label that pass any threshold, and of them for another."""

    confident: npt.NDArray[np.int64]
    elsewhere: npt.NDArray[np.int64]


def find_label_errors(
    probabilities: npt.NDArray[np.floating], labels: Ints, excluded: Bools | None = None
) -> LabelErrors:
    """Judge every image's label.

    Args:
        probabilities: N×C, of models that were not trained on the image.
        labels: the given classes, [N], each in 0..C-1. A class may have no images, or one.
        excluded: bool [N], images that have no say and are not judged: those that cleaning
            leaves out, say, or that a person has decided on. None: none.

    Raises:
        DataError: shapes that do not belong together, labels that are no class, probabilities
            that are not finite or outside 0..1; naming the first such row.
    """
    judged = np.ones(len(labels), np.bool_) if excluded is None else ~excluded
    _check(probabilities, labels, judged)
    rows, n_classes = np.flatnonzero(judged), probabilities.shape[1]
    result = LabelErrors(
        suspicion=np.where(judged, 0.0, np.nan),
        suspect=np.zeros(len(labels), np.bool_),
        likelier=labels.astype(np.int64),
    )
    if n_classes < 2 or not len(rows):
        return result
    thresholds = confident_thresholds(probabilities, labels, judged)
    scales = _scales(probabilities, labels, judged)
    counts = _Counts(np.zeros(n_classes, np.int64), np.zeros(n_classes, np.int64))
    step = max(1, _CELLS // n_classes)
    for part in (rows[at : at + step] for at in range(0, len(rows), step)):
        _judge(probabilities[part], labels[part], thresholds, part, result, counts)
        result.suspicion[part] = _suspicion(probabilities[part], labels[part], scales)
    images = np.bincount(labels[rows], minlength=n_classes)
    errors = round(float((images * counts.elsewhere / np.maximum(counts.confident, 1)).sum()))
    doubted = np.flatnonzero(result.suspect)
    order = np.argsort(-result.suspicion[doubted], kind="stable")
    result.suspect[doubted[order[errors:]]] = False
    return result


def confident_thresholds(
    probabilities: npt.NDArray[np.floating], labels: Ints, judged: Bools
) -> Floats:
    """Each class's mean probability on the images with its label, [C]; infinite without any."""
    n_classes = probabilities.shape[1]
    rows = np.flatnonzero(judged)
    own = probabilities[rows, labels[rows]].astype(np.float64)
    counts = np.bincount(labels[rows], minlength=n_classes)
    sums = np.bincount(labels[rows], own, n_classes)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.inf))


def _judge(
    probabilities: npt.NDArray[np.floating],
    labels: Ints,
    thresholds: Floats,
    rows: npt.NDArray[np.int64],
    result: LabelErrors,
    counts: _Counts,
) -> None:
    """Fill in `rows` of the result from their probabilities n×C and labels [n], and count them.

    Suspects are then all whose label is not the likeliest. An image that is above the threshold
    of another class no further than above its own is not counted for it: otherwise predictions
    that are the same for every image would accuse all of them.
    """
    here = np.arange(len(rows))
    own = probabilities[here, labels].astype(np.float64)
    passing = probabilities >= (thresholds - _ROUNDING).astype(probabilities.dtype)
    others = np.where(passing, probabilities, probabilities - 1)  # in -1..0: only if none passes
    others[:, np.isinf(thresholds)] = -np.inf
    others[here, labels] = -np.inf
    best = others.argmax(1)
    theirs = np.where(np.isinf(thresholds[best]), 0.0, probabilities[here, best])
    surplus, own_surplus = theirs - thresholds[best], own - thresholds[labels]
    elsewhere = passing[here, best] & (theirs > own) & (surplus > own_surplus + _ROUNDING)
    n_classes = len(thresholds)
    counts.confident[:] += np.bincount(labels[passing.any(1)], minlength=n_classes)
    counts.elsewhere[:] += np.bincount(labels[elsewhere], minlength=n_classes)
    result.suspect[rows] = theirs > own
    result.likelier[rows] = np.where(np.isinf(thresholds[best]), labels, best)


def _scales(probabilities: npt.NDArray[np.floating], labels: Ints, judged: Bools) -> Floats:
    """Per class [C], how many times as frequent it is among the labels as in the predictions."""
    counts = np.bincount(labels[judged], minlength=probabilities.shape[1])
    predicted = probabilities.sum(0, np.float64, where=judged[:, None])
    return np.asarray(counts / np.maximum(predicted, np.finfo(np.float32).tiny))


def _suspicion(probabilities: npt.NDArray[np.floating], labels: Ints, scales: Floats) -> Floats:
    scaled = (probabilities @ scales.astype(probabilities.dtype)).astype(np.float64)
    own = probabilities[np.arange(len(labels)), labels] * scales[labels]
    return np.asarray(1 - own / np.maximum(scaled, np.finfo(np.float32).tiny))


def _check(probabilities: npt.NDArray[np.floating], labels: Ints, judged: Bools) -> None:
    if probabilities.ndim != 2 or len(probabilities) != len(labels) or labels.ndim != 1:
        raise DataError(
            f"label suspects need probabilities N×C and N labels, got {probabilities.shape} and "
            f"{labels.shape}; give one row an image"
        )
    if judged.shape != labels.shape:
        raise DataError(
            f"label suspects: {judged.shape} excluded for {labels.shape} labels; give one an image"
        )
    n_classes = probabilities.shape[1]
    wrong = judged & ((labels < 0) | (labels >= n_classes))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"label suspects: the label {labels[row]} of row {row} is none of {n_classes} classes; "
            "give the probabilities of all classes"
        )
    ends = probabilities.min(1, initial=1.0), probabilities.max(1, initial=0.0)  # NaN stays NaN
    usable = (ends[0] >= 0) & (ends[1] <= 1 + _ROUNDING)
    if not usable[judged].all():
        unusable = np.flatnonzero(judged & ~usable)
        raise DataError(
            f"label suspects: {len(unusable)} of {int(judged.sum())} rows of probabilities are "
            f"not finite or not within 0..1, the first is row {unusable[0]}; the training that "
            "gave them has diverged, or they are logits"
        )
