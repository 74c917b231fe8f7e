"""What a candidate's answers on the validation images are worth, beside those of fp32."""

from typing import TypedDict

import numpy as np
import numpy.typing as npt

from tasks.metrics.bootstrap import paired_difference, score_intervals
from tasks.metrics.classification import confusion_matrix, recall_by_class
from tasks.metrics.reliability import reliability, softmax
from tasks.runtime import Floats

CONFIDENCE, BINS = 0.95, 15
_RESAMPLES, _SEED = 2_000, 0


class Accuracy(TypedDict):
    """Shares in 0..1; the fields of a `Candidate` that its answers decide."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_change: float
    accuracy_change_low: float
    accuracy_change_high: float
    worst_recall_change: float
    worst_recall_class: str
    agreement: float
    calibration_error: float


def accuracy_of(
    logits: Floats, wanted: Floats, labels: npt.NDArray[np.int64], classes: tuple[str, ...]
) -> Accuracy:
    """Judge logits N×C beside those of the fp32 PyTorch model, `wanted`, on the same images.

    Intervals are of 95 %: of the accuracy a stratified bootstrap's, of its change a paired one's.
    The change of recall is that of the class that loses most. The calibration error is the
    expected one, in bins of equal mass, before any temperature is fitted.
    """
    found, before = logits.argmax(1), wanted.argmax(1)
    confusion = confusion_matrix(labels, found, len(classes))
    ends = score_intervals(confusion, _RESAMPLES, CONFIDENCE, _SEED)
    change, low, high = paired_difference(
        before == labels, found == labels, _RESAMPLES, CONFIDENCE, _SEED
    )
    recalls = [recall_by_class(answers, labels, len(classes)) for answers in (before, found)]
    changes = np.nan_to_num(recalls[1] - recalls[0])  # of a class without images: none
    worst = int(changes.argmin())
    return Accuracy(
        accuracy=float(ends.value.accuracy),
        accuracy_low=float(ends.low.accuracy),
        accuracy_high=float(ends.high.accuracy),
        accuracy_change=change,
        accuracy_change_low=low,
        accuracy_change_high=high,
        worst_recall_change=float(changes[worst]),
        worst_recall_class=classes[worst],
        agreement=float((found == before).mean()),
        calibration_error=reliability(softmax(logits), labels, BINS).error,
    )
