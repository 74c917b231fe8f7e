"""The evidence as plain rows and sentences, for the report, the model card and the CSV files."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.bundle import BundleInfo
from tasks.evaluation.evidence import Evidence, Measured
from tasks.metrics.bootstrap import ScoredIntervals
from tasks.metrics.classification import OVERALL

Names = list[str] | tuple[str, ...]
_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_precision": "Mean precision",
    "macro_recall": "Mean recall",
    "macro_f1": "Mean F1",
    "weighted_precision": "Precision, weighted by images",
    "weighted_f1": "F1, weighted by images",
    "kappa": "Cohen's kappa",
}
_MATRIX = 30  # classes in a readable confusion matrix
_PAIRS = 10
_FEW = 10  # test images of a class below which its figures say little


@dataclass(frozen=True)
class Interval:
    """A share in 0..1 with its interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ClassRow:
    """One class on the test split: the deployed model's scores and fp32's recall."""

    name: str
    images: int
    precision: Interval
    recall: Interval
    f1: Interval
    fp32_recall: Interval
    roc_auc: float | None
    average_precision: float | None


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix that fits on a page: rows actual, columns predicted."""

    names: list[str]
    counts: list[list[int]]
    shares: list[list[float]]
    left_out: int


def interval(scored: ScoredIntervals, name: str, index: int | None = None) -> Interval:
    """One score of ScoredIntervals, of class `index` where it is a per-class one."""
    values = [getattr(part, name) for part in (scored.value, scored.low, scored.high)]
    numbers = [float(value if index is None else value[index]) for value in values]
    return Interval(*(number if np.isfinite(number) else None for number in numbers))


def overall(measured: Measured) -> dict[str, Interval]:
    """Accuracy, balanced accuracy and the means over classes."""
    return {name: interval(measured.scored, name) for name in OVERALL}


def compared(evidence: Evidence) -> list[tuple[str, Interval, Interval]]:
    """Overall scores by title: of the deployed model and of fp32."""
    ours, theirs = overall(evidence.deployed), overall(evidence.fp32)
    return [(_TITLES[name], ours[name], theirs[name]) for name in OVERALL]


def of_all_probabilities(measured: Measured) -> dict[str, float | None]:
    """Scores that look at more than the first answer, by title; None where not defined."""
    found = measured.ranked
    return {
        **{f"Label among the first {k}": share for k, share in found.top.items()},
        "Mean AUROC": known(found.macro_roc_auc),
        "Mean average precision": known(found.macro_average_precision),
    }


def known(value: float) -> float | None:
    """The number, or None where it is not defined."""
    return float(value) if np.isfinite(value) else None


def verdict(evidence: Evidence, info: BundleInfo) -> str:
    """Which model was chosen and how it compares with fp32, in two or three sentences."""
    if evidence.candidates.chosen == evidence.candidates.fp32:
        return f"{info.technique}. The fp32 model itself is deployed: {evidence.candidates.reason}"
    value, low, high = (100 * share for share in evidence.difference)
    faster = info.measurements.eager_fp32_latency_ms / info.measurements.latency_ms
    if low <= 0 <= high:
        told = "the test images do not tell the two apart"
    else:
        told = "better than fp32" if low > 0 else "worse than fp32"
    return (
        f"{info.architecture}, {info.technique}: {faster:.1f} times as fast as eager fp32, and the "
        f"same answer on {100 * info.measurements.agreement_with_fp32:.1f} % of test images. "
        f"Accuracy against fp32 on the same images: {value:+.1f} points "
        f"({low:+.1f} to {high:+.1f}), {told}."
    )


def class_rows(evidence: Evidence, classes: Names) -> list[ClassRow]:
    """One row a class, in the order of the classes."""
    support = evidence.deployed.confusion.sum(1)
    return [
        ClassRow(
            name=name,
            images=int(support[i]),
            precision=interval(evidence.deployed.scored, "precision", i),
            recall=interval(evidence.deployed.scored, "recall", i),
            f1=interval(evidence.deployed.scored, "f1", i),
            fp32_recall=interval(evidence.fp32.scored, "recall", i),
            roc_auc=known(evidence.deployed.ranked.roc_auc[i]),
            average_precision=known(evidence.deployed.ranked.average_precision[i]),
        )
        for i, name in enumerate(classes)
    ]


def shown_classes(confusion: npt.NDArray[np.int64], classes: Names) -> Confusion:
    """The matrix, or with many classes the part of it that holds the most mistakes."""
    off = confusion - np.diag(np.diag(confusion))
    mistakes = off.sum(0) + off.sum(1)
    chosen = np.sort(np.argsort(-mistakes, kind="stable")[:_MATRIX])
    part = confusion[np.ix_(chosen, chosen)]
    shares = part / np.maximum(confusion.sum(1)[chosen, None], 1)
    names = [classes[i] for i in chosen]
    return Confusion(names, part.tolist(), shares.tolist(), len(classes) - len(names))


def confused_pairs(
    confusion: npt.NDArray[np.int64], classes: Names
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: actual, predicted, images, share of the actual class."""
    off = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-off, axis=None, kind="stable")[:_PAIRS]
    cells = [divmod(int(i), len(classes)) for i in order if off.flat[i] > 0]
    support = confusion.sum(1)
    return [
        (classes[a], classes[p], int(off[a, p]), float(off[a, p] / support[a])) for a, p in cells
    ]


def remarks(evidence: Evidence, classes: Names) -> list[str]:
    """What a reader must know before trusting the figures; [] when there is nothing."""
    notes = _class_remarks(evidence, classes)
    for measured in (evidence.deployed, evidence.fp32):
        notes += _model_remarks(measured, classes)
        if measured.name == evidence.fp32.name == evidence.deployed.name:
            break
    notes += evidence.missed
    if evidence.decided.note:
        notes.append(evidence.decided.note)
    if evidence.decided.decision.set_from == 0:
        notes.append(
            f"Prediction sets hold every class: on {len(evidence.shards.split('validation'))} "
            "validation images no smaller sets can promise what evaluate.set_coverage asks for."
        )
    images, bins = len(evidence.deployed.labels), len(evidence.deployed.after.images)
    if images < 20 * bins:
        notes.append(
            f"The calibration error rests on {images} images in {bins} bins, fewer than 20 a bin: "
            "chance alone makes it larger than it is."
        )
    return notes


def _class_remarks(evidence: Evidence, classes: Names) -> list[str]:
    support = evidence.deployed.confusion.sum(1)
    learnt = np.bincount(evidence.shards.split("train").labels, minlength=len(classes))
    unseen = [classes[i] for i in np.flatnonzero((support > 0) & (learnt == 0))]
    absent = [classes[i] for i in np.flatnonzero(support == 0)]
    few = [classes[i] for i in np.flatnonzero((support > 0) & (support < _FEW))]
    notes = []
    if absent:
        notes.append(
            f"No test images of {_listed(absent)}: their recall and F1 are not known, and the "
            "means over classes leave them out."
        )
    if unseen:
        notes.append(
            f"No training images of {_listed(unseen)}: the model cannot have learnt them, and "
            f"their {support[learnt == 0].sum():,} test images are counted like all others."
        )
    if few:
        notes.append(f"Fewer than {_FEW} test images of {_listed(few)}: mind the intervals.")
    return notes


def _model_remarks(measured: Measured, classes: Names) -> list[str]:
    predicted = np.flatnonzero(measured.confusion.sum(0))
    silent = [
        classes[i]
        for i in np.flatnonzero((measured.confusion.sum(0) == 0) & (measured.confusion.sum(1) > 0))
    ]
    notes = []
    if len(predicted) == 1:
        notes.append(
            f"{measured.name} predicts {classes[predicted[0]]} for every test image: it has "
            "learned nothing that tells the classes apart."
        )
    elif silent:
        notes.append(
            f"{measured.name} never predicts {_listed(silent)}: their precision is not defined, "
            "and the mean precision leaves them out."
        )
    if measured.temperature.note:
        notes.append(f"{measured.name}: {measured.temperature.note}")
    if measured.after.error > measured.before.error + 0.005:
        notes.append(
            f"{measured.name}: {measured.calibration.title} raised the calibration error on the "
            f"test images from {measured.before.error:.3f} to {measured.after.error:.3f}."
        )
    return notes


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more classes" if len(names) > 8 else shown
