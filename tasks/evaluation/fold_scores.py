"""The scores of one fold of a cross-validation, and the interval of a score over the folds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.metrics.classification import OVERALL, confusion_matrix, scores_of


class Interval(NamedTuple):
    """The mean over the folds where a score is defined, and its confidence interval."""

    mean: float
    low: float
    high: float


def scores_of_fold(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], classes: Sequence[str]
) -> dict[str, float]:
    """Loss (nats per image), shares over all classes, the worst class's recall, each class's.

    `probabilities` are N×C. What is not defined (a class without images) is NaN.
    """
    found = scores_of(confusion_matrix(labels, probabilities.argmax(1), len(classes)))
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = -np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean()
    overall = {name: float(getattr(found, name)) for name in OVERALL}
    recalls = dict(zip((f"recall.{name}" for name in classes), found.recall.tolist(), strict=True))
    worst = {"worst_recall": float(np.nanmin(found.recall))}
    return {"loss": float(loss), **overall, **worst, **recalls}


def interval(
    values: Sequence[float], confidence: float, least: float = -math.inf, most: float = math.inf
) -> Interval:
    """Student's t interval of the mean, over the values that are not NaN, within least and most.

    The folds share training images, so their scores are not independent and the interval is
    approximate, often too narrow (Bengio & Grandvalet 2004, "No unbiased estimator of the
    variance of k-fold cross-validation"). NaN ends for fewer than two values.
    """
    from scipy.stats import t  # a second: only when there are folds

    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) < 2:
        return Interval(float(known.mean()) if len(known) else math.nan, math.nan, math.nan)
    error = float(known.std(ddof=1) / np.sqrt(len(known)))
    reach = float(t.ppf((1 + confidence) / 2, len(known) - 1)) * error
    mean = float(known.mean())
    return Interval(mean, max(least, mean - reach), min(most, mean + reach))
