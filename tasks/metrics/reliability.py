"""Whether probabilities mean what they say: reliability, calibration error, likelihood."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.metrics.classification import Floats, Ints

Logits = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Reliability:
    """Bins of equal mass, by rising confidence: each float64 [B]."""

    confidence: Floats
    accuracy: Floats
    images: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap of accuracy and confidence, in 0..1."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float(np.average(gaps, weights=self.images))


def softmax(logits: Logits, temperature: float = 1.0) -> Floats:
    """Probabilities float64 N×C of logits N×C divided by the temperature."""
    return np.exp(log_softmax(logits.astype(np.float64) / temperature))


def negative_log_likelihood(logits: Logits, labels: Ints, temperature: float = 1.0) -> float:
    """Mean of -log p(label), in nats."""
    logarithms = log_softmax(logits.astype(np.float64) / temperature)
    return float(-logarithms[np.arange(len(labels)), labels].mean())


def reliability(probabilities: Floats, labels: Ints, bins: int) -> Reliability:
    """Accuracy against confidence in `bins` bins of equal mass (fewer when N < bins).

    Images of equal confidence share their accuracy, so their order does not matter.
    """
    confidence = probabilities.max(1)
    levels, inverse, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    right = np.bincount(inverse, probabilities.argmax(1) == labels, len(levels)) / counts
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return Reliability(
        confidence=np.array([confidence[part].mean() for part in parts]),
        accuracy=np.array([right[inverse[part]].mean() for part in parts]),
        images=np.array([len(part) for part in parts]),
    )


def logsumexp(values: Floats) -> Floats:
    """Log Σ exp of each row of N×C, float64 [N]."""
    highest = values.max(1)
    return np.asarray(highest + np.log(np.exp(values - highest[:, None]).sum(1)))


def log_softmax(values: Floats) -> Floats:
    """Logarithms of the probabilities of logits float64 N×C, the same shape."""
    return values - logsumexp(values)[:, None]
