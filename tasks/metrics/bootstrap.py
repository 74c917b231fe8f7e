"""Bootstrap intervals of classification scores, stratified by class (Efron & Tibshirani 1993).

Drawing n images of a class with replacement and counting where they are predicted is one
multinomial draw from that class's row of the confusion matrix. So nothing is resampled
image by image: thousands of resamples cost milliseconds, whatever the number of images.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.metrics.classification import (
    OVERALL,
    Bools,
    Floats,
    Ints,
    Scores,
    chance_agreement,
    scores,
    scores_of,
)

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScoredIntervals:
    """Scores with the ends of their intervals."""

    value: Scores
    low: Scores
    high: Scores


def score_intervals(
    confusion: Ints, resamples: int, confidence: float, seed: int
) -> ScoredIntervals:
    """Scores of a confusion matrix C×C with percentile intervals at `confidence`.

    The bootstrap cannot see an error that did not happen: it gives a score of 1 (or 0) an
    interval of no width. Such an end is replaced by the exact binomial bound for n trials
    without a failure (Clopper & Pearson 1934), n being the images that the score rests on.
    """
    value = scores_of(confusion)
    hits, predicted = _resample(confusion, resamples, np.random.default_rng(seed))
    drawn = scores(hits, confusion.sum(1), predicted)
    tail = (1 - confidence) / 2
    low, high = {}, {}
    for name, trials in _trials(confusion).items():
        point = getattr(value, name)
        ends = _quantiles(getattr(drawn, name), (tail, 1 - tail))
        floor, ceiling = _bounds(trials, tail, overlap=name == "f1")
        if name == "kappa":
            floor, ceiling = _kappa_bounds(confusion, floor, ends[1])
        low[name] = np.where(point == 1, floor, ends[0])
        high[name] = np.where(point == 0, ceiling, ends[1])
    return ScoredIntervals(value, Scores(**low), Scores(**high))


def paired_difference(
    correct_a: Bools, correct_b: Bools, resamples: int, confidence: float, seed: int
) -> tuple[float, float, float]:
    """Accuracy of b minus accuracy of a on the same images, with its percentile interval.

    `correct_a` and `correct_b` are bool [N], image by image. Pairs are resampled, so what
    both models find hard cancels. Two models that are right on the same images give
    (0, 0, 0): on these images there is nothing to tell them apart.
    """
    if correct_a.shape != correct_b.shape or correct_a.ndim != 1 or not correct_a.size:
        raise ValueError(f"paired arrays of N > 0, got {correct_a.shape} and {correct_b.shape}")
    change = correct_b.astype(np.int64) - correct_a
    counts = np.bincount(change + 1, minlength=3)
    drawn = np.random.default_rng(seed).multinomial(change.size, counts / change.size, resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / change.size, (tail, 1 - tail))
    return float(change.mean()), float(low), float(high)


def share_interval(hits: Bools, confidence: float) -> tuple[float, float, float]:
    """The share of True in bool [N], N > 0, with its exact interval (Clopper & Pearson 1934)."""
    from scipy.stats import binomtest

    found = binomtest(int(hits.sum()), len(hits)).proportion_ci(confidence)
    return float(hits.mean()), float(found.low), float(found.high)


def mean_interval(
    values: Floats, resamples: int, confidence: float, seed: int
) -> tuple[float, float, float]:
    """The mean of float64 [N], N > 0, with its percentile interval: images are drawn anew."""
    random = np.random.default_rng(seed)
    drawn = [values[random.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(values.mean()), float(low), float(high)


def _resample(confusion: Ints, resamples: int, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """True positives and predictions per class of each resample, int64 R×C both."""
    n_classes = len(confusion)
    hits = np.zeros((resamples, n_classes), np.int64)
    predicted = np.zeros_like(hits)
    for actual, row in enumerate(confusion):
        cells = np.flatnonzero(row)
        if cells.size:
            drawn = rng.multinomial(row.sum(), row[cells] / row.sum(), resamples)
            predicted[:, cells] += drawn
            hits[:, actual] = drawn[:, cells == actual].sum(1)
    return hits, predicted


def _trials(confusion: Ints) -> dict[str, Floats]:
    """The number of images each score rests on; for means over classes the effective one."""
    support, predicted = confusion.sum(1), confusion.sum(0)
    present = support > 0
    # Kish: a mean of C shares from n_c images each varies like one from C² / Σ 1/n_c images.
    effective = present.sum() ** 2 / np.sum(1 / support[present]) if present.any() else 0
    trials: dict[str, Floats] = {name: np.asarray(effective, np.float64) for name in OVERALL}
    for name in ("accuracy", "weighted_precision", "weighted_f1", "kappa"):
        trials[name] = np.asarray(support.sum(), np.float64)
    union = support + predicted - np.diag(confusion)
    per_class = zip(("precision", "recall", "f1"), (predicted, support, union), strict=True)
    return trials | {name: counts.astype(np.float64) for name, counts in per_class}


def _bounds(trials: Floats, tail: float, overlap: bool) -> tuple[Floats, Floats]:
    """The lower bound after n successes in n trials, and the upper one after none.

    F1 is no binomial share, but the overlap J = TP/(TP+FP+FN) is, and F1 = 2J/(1+J).
    """
    floor = tail ** (1 / np.maximum(trials, 1))
    if overlap:
        return 2 * floor / (1 + floor), 2 * (1 - floor) / (2 - floor)
    return floor, 1 - floor


def _kappa_bounds(confusion: Ints, floor: Floats, high: Floats) -> tuple[Floats, Floats]:
    """The kappa of the lowest accuracy; a kappa of 0 is no share without a success: no bound."""
    chance = chance_agreement(confusion.sum(1), confusion.sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((floor - chance) / (1 - chance)), high


def _quantiles(drawn: Floats, ends: tuple[float, float]) -> Floats:
    """Quantiles along the resamples, leaving out those where the score is undefined."""
    undefined = np.isnan(drawn)
    if not undefined.any():
        return np.asarray(np.quantile(drawn, ends, axis=0))
    if undefined.all(axis=0).any():  # undefined in every resample: stays undefined
        drawn = np.where(undefined.all(axis=0), -1.0, drawn)
    result = np.nanquantile(drawn, ends, axis=0)
    return np.where(undefined.all(axis=0), np.nan, result)
