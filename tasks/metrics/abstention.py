"""When to answer: the risk of the answers that are given, and sets that hold the true class.

Confidence is the largest probability. A model that abstains below a threshold answers fewer images
(coverage) and is wrong on fewer of those (risk): El-Yaniv & Wiener 2010, "On the foundations of
noise-free selective classification".
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.metrics.classification import Bools, Floats, Ints

Probabilities = npt.NDArray[np.floating]

CERTAINTY = 0.95  # with which a threshold for a risk keeps it


@dataclass(frozen=True)
class RiskCoverage:
    """Every coverage that a threshold can reach, rising: float64 [K] each."""

    threshold: Probabilities
    coverage: Floats
    risk: Floats

    @property
    def area(self) -> float:
        """The mean risk over all coverages (AURC); lower is better."""
        steps = np.diff(self.coverage, prepend=0.0)
        return float((steps * self.risk).sum() / self.coverage[-1])

    def at(self, threshold: float) -> tuple[float, float]:
        """Coverage and risk of those at least so confident; (0, NaN) when there are none."""
        reached = np.flatnonzero(self.threshold >= threshold)
        if not len(reached):
            return 0.0, float("nan")
        return float(self.coverage[reached[-1]]), float(self.risk[reached[-1]])


def risk_coverage(confidence: Probabilities, correct: Bools) -> RiskCoverage:
    """The curve of confidences [N] and whether the answers are right [N]; N > 0.

    Images of one confidence are answered together, so their order does not matter.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    answered = ends + 1
    wrong = np.cumsum(~correct[order])[ends]
    return RiskCoverage(ranked[ends], answered / len(ranked), wrong / answered)


def threshold_for_coverage(confidence: Probabilities, coverage: float) -> float:
    """The highest threshold at which at least that share of the images [N] is answered."""
    least = int(np.ceil(coverage * len(confidence) - 1e-9))
    return float(np.sort(confidence)[::-1][max(least, 1) - 1])


def threshold_for_risk(curve: RiskCoverage, images: int, risk: float) -> float | None:
    """The lowest threshold whose risk on new images is below `risk`, with CERTAINTY.

    The bound on the risk is the exact binomial one, for the few thresholds that a binary search
    looks at (Geifman & El-Yaniv 2017, "Selective classification for deep neural networks",
    algorithm 1). None when no threshold can promise it with so many images.
    """
    from scipy.stats import beta

    looks = int(np.ceil(np.log2(len(curve.threshold)))) + 1
    doubt = (1 - CERTAINTY) / looks
    low, high, found = 0, len(curve.threshold) - 1, None
    while low <= high:
        middle = (low + high + 1) // 2
        answered = round(curve.coverage[middle] * images)
        wrong = round(curve.risk[middle] * answered)
        bound = 1.0 if wrong == answered else beta.ppf(1 - doubt, wrong + 1, answered - wrong)
        if bound <= risk:
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return None if found is None else float(curve.threshold[found])


def set_threshold(probabilities: Probabilities, labels: Ints, coverage: float) -> float:
    """The probability from which a class belongs to the set, so that sets hold the true class.

    Split conformal prediction: with images N×C that are exchangeable with new ones, the sets
    hold the true class of a new image with a probability of at least `coverage` (Sadinle, Lei &
    Wasserman 2019, "Least ambiguous set-valued classifiers"). 0, every class, when the images
    are too few to promise that.
    """
    true = np.sort(probabilities[np.arange(len(labels)), labels])
    left_out = int(np.floor((len(labels) + 1) * (1 - coverage) + 1e-9))
    return float(true[left_out - 1]) if left_out else 0.0


def prediction_sets(probabilities: Probabilities, threshold: float) -> Bools:
    """Which classes belong to the set of each image, N×C; the most probable one always does."""
    chosen = probabilities >= threshold
    chosen[np.arange(len(probabilities)), probabilities.argmax(1)] = True
    return np.asarray(chosen)
