"""Intervals of classification scores: Wilson's, at the size that a stratified bootstrap tells.

Drawing n images of a class with replacement and counting where they are predicted is one
multinomial draw from that class's row of the confusion matrix. So nothing is resampled
image by image: thousands of resamples cost milliseconds, whatever the number of images.
"""

from dataclasses import dataclass
from statistics import NormalDist

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
_CLASS_MEANS = ("balanced_accuracy", "macro_recall", "macro_f1")
_HALF_A_PAIR = np.array([0.5, 0, 0.5])  # a alone is right, neither or both, b alone
_FEW = 10  # images of a class below which resampling it shows too little of how much it varies


@dataclass(frozen=True)
class ScoredIntervals:
    """Scores with the ends of their intervals."""

    value: Scores
    low: Scores
    high: Scores


def score_intervals(
    confusion: Ints, resamples: int, confidence: float, seed: int
) -> ScoredIntervals:
    """Scores of a confusion matrix C×C with intervals at `confidence`.

    Each is Wilson's interval (1927) of a share in as many images as would make it vary like the
    score does in a bootstrap that is stratified by class (Efron & Tibshirani 1993): the effective
    sample size (Kish 1965), as surveys do. The bootstrap's own percentiles are too narrow near
    100 %, and it cannot see errors that did not happen. Hence a score that never varies rests on
    the images it is of, and a mean over classes, or any score with a class of fewer than ten
    images, on no more than it would if every class erred alike.
    """
    value, low, high = scores_of(confusion), {}, {}
    chance = chance_agreement(confusion.sum(1), confusion.sum(0))
    for name, (size, share) in _sized_shares(confusion, value, chance, resamples, seed).items():
        ends = wilson(share, size, confidence)
        if name == "kappa":  # back from accuracy; of one class only it is not defined
            with np.errstate(invalid="ignore", divide="ignore"):
                ends = (ends[0] - chance) / (1 - chance), (ends[1] - chance) / (1 - chance)
        low[name], high[name] = ends
    return ScoredIntervals(value, Scores(**low), Scores(**high))


def wilson(share: Floats, trials: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Wilson's score interval of shares in `trials` images, which need not be whole numbers.

    Arrays of one shape; NaN where the share is NaN. Nothing but 0 to 1 where there are no images.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    trials = np.maximum(trials, 1e-9)
    middle = (share * trials + z / 2) / (trials + z)
    reach = np.sqrt(z * (share * (1 - share) * trials + z / 4)) / (trials + z)
    # Its ends at 0 and 1 are exact; rounding must not leave them out.
    return (
        np.where(share == 0, 0.0, np.minimum(middle - reach, share)),
        np.where(share == 1, 1.0, np.maximum(middle + reach, share)),
    )


def paired_difference(
    correct_a: Bools, correct_b: Bools, resamples: int, confidence: float, seed: int
) -> tuple[float, float, float]:
    """Accuracy of b minus accuracy of a on the same images, with its percentile interval.

    `correct_a` and `correct_b` are bool [N], image by image. Pairs are resampled, so what
    both models find hard cancels. Half a pair is added to either kind of disagreement (Jeffreys'
    prior), without which few of them make the interval too narrow. Two models that are right on
    the same images give (0, 0, 0): on these images there is nothing to tell them apart.
    """
    if correct_a.shape != correct_b.shape or correct_a.ndim != 1 or not correct_a.size:
        raise ValueError(f"paired arrays of N > 0, got {correct_a.shape} and {correct_b.shape}")
    change = correct_b.astype(np.int64) - correct_a
    counts = np.bincount(change + 1, minlength=3) + (_HALF_A_PAIR if change.any() else 0)
    drawn = np.random.default_rng(seed).multinomial(change.size, counts / counts.sum(), resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / change.size, (tail, 1 - tail))
    return float(change.mean()), float(low), float(high)


def share_interval(hits: Bools, confidence: float) -> tuple[float, float, float]:
    """The share of True in bool [N], N > 0, with its interval (Wilson 1927)."""
    share = np.asarray(hits.mean(), np.float64)
    low, high = wilson(share, np.asarray(len(hits), np.float64), confidence)
    return float(share), float(low), float(high)


def mean_interval(
    values: Floats, resamples: int, confidence: float, seed: int
) -> tuple[float, float, float]:
    """The mean of float64 [N], N > 0, with its percentile interval: images are drawn anew."""
    random = np.random.default_rng(seed)
    drawn = [values[random.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(values.mean()), float(low), float(high)


def _sized_shares(
    confusion: Ints, value: Scores, chance: Floats, resamples: int, seed: int
) -> dict[str, tuple[Floats, Floats]]:
    """By score the images that it rests on, and itself as a share; kappa's is the accuracy."""
    support = confusion.sum(1)
    hits, predicted = _resample(confusion, resamples, np.random.default_rng(seed))
    drawn = scores(hits, support, predicted)
    few = bool((support[support > 0] < _FEW).any())
    found = {}
    for name, trials in _trials(confusion).items():
        share, variance = getattr(value, name), _variance(getattr(drawn, name))
        if name == "kappa":
            share, variance = share * (1 - chance) + chance, variance * (1 - chance) ** 2
        # Recall is a binomial share: resampling has nothing to tell of it.
        size = trials if name == "recall" else _effective(share, variance, trials)
        if name in _CLASS_MEANS or (few and name in OVERALL):
            size = np.minimum(size, trials)
        found[name] = (size, share)
    return found


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
    # F1 = 2J/(1+J) of the overlap J = TP/(TP+FP+FN) varies near 1 like a share in twice as many.
    both = support + predicted
    per_class = zip(("precision", "recall", "f1"), (predicted, support, both), strict=True)
    return trials | {name: counts.astype(np.float64) for name, counts in per_class}


def _effective(share: Floats, variance: Floats, trials: Floats) -> Floats:
    """The images in which a share would vary so; `trials` where nothing varies."""
    moves = variance > 1e-12
    return np.where(moves, share * (1 - share) / np.where(moves, variance, 1), trials)


def _variance(drawn: Floats) -> Floats:
    """The variance along the resamples, leaving out those where the score is undefined."""
    known = np.isfinite(drawn)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, drawn, 0).sum(0) / count
    return np.asarray((np.where(known, drawn - mean, 0) ** 2).sum(0) / count)
