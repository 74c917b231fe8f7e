"""How unlike the training images an image is: four scores, each in numpy and as nodes of the graph.

Each takes the logits N×C before calibration and the embedding N×D; higher is stranger.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from tasks.evaluation.additions import Additions
from tasks.metrics.classification import Floats, Ints
from tasks.metrics.reliability import Logits, logsumexp
from tasks.schema import OodScore

Embeddings = npt.NDArray[np.floating]

# The least variance in any direction, as a share of the mean over directions: below, a direction
# that training hardly uses would be measured by the rounding of a float32.
_FLOOR = 1e-3


class Score(Protocol):
    """Logits and embedding → a score, float64 [N]."""

    name: ClassVar[OodScore]

    def __call__(self, logits: Logits, embedding: Embeddings) -> Floats:
        """The score of each image."""

    def add(self, graph: Additions, logits: str, embedding: str, output: str) -> None:
        """The same as nodes."""


@dataclass(frozen=True)
class Energy:
    """-log Σ exp z (Liu et al. 2020, "Energy-based out-of-distribution detection")."""

    name: ClassVar[OodScore] = "energy"

    def __call__(self, logits: Logits, embedding: Embeddings) -> Floats:
        """The score of each image, float64 [N]."""
        return -logsumexp(logits.astype(np.float64))

    def add(self, graph: Additions, logits: str, embedding: str, output: str) -> None:
        """The largest logit apart, so that nothing overflows."""
        highest, total = _softmax_parts(graph, logits)
        energy = graph.node("Add", graph.node("Log", total), highest)
        flat = graph.node("Squeeze", energy, graph.axes(1))
        graph.node("Neg", flat, output=output)


@dataclass(frozen=True)
class MaxSoftmax:
    """1 - max softmax z (Hendrycks & Gimpel 2017, "A baseline for detecting misclassified ...")."""

    name: ClassVar[OodScore] = "max_softmax"

    def __call__(self, logits: Logits, embedding: Embeddings) -> Floats:
        """The score of each image, float64 [N]."""
        values = logits.astype(np.float64)
        return np.asarray(1 - np.exp(values.max(1) - logsumexp(values)))

    def add(self, graph: Additions, logits: str, embedding: str, output: str) -> None:
        """The largest is one of the sum of all, each divided by it."""
        _, total = _softmax_parts(graph, logits)
        others = graph.node("Sub", total, graph.constant("one", 1.0))
        share = graph.node("Div", others, total)
        graph.node("Squeeze", share, graph.axes(1), output=output)


@dataclass(frozen=True)
class Gaussian:
    """One covariance around means: `whitening` D×D makes it the identity, `means` K×D in there."""

    centre: Floats
    whitening: Floats
    means: Floats

    def distances(self, embedding: Embeddings) -> Floats:
        """Squared Mahalanobis distance to the nearest mean, float64 [N]."""
        there = (embedding.astype(np.float64) - self.centre) @ self.whitening
        squares = (there**2).sum(1, keepdims=True) + (self.means**2).sum(1)
        return np.asarray((squares - 2 * there @ self.means.T).min(1))

    def add(self, graph: Additions, embedding: str, prefix: str, output: str | None = None) -> str:
        """The distances as nodes, [N]: of N×K numbers, not of N×K×D differences."""
        centre = graph.constant(f"{prefix}.centre", self.centre)
        whitening = graph.constant(f"{prefix}.whitening", self.whitening)
        there = graph.node("MatMul", graph.node("Sub", embedding, centre), whitening)
        square = graph.node("Mul", there, there)
        own = graph.sum(square, len(self.centre))
        mean = graph.constant(f"{prefix}.means", -2 * self.means.T)
        other = graph.constant(f"{prefix}.squares", (self.means**2).sum(1))
        cross = graph.node("Add", graph.node("MatMul", there, mean), other)
        every = graph.node("Add", cross, own)
        nearest = graph.node("ReduceMin", every, graph.axes(1), keepdims=1)
        return graph.node("Squeeze", nearest, graph.axes(1), output=output)


@dataclass(frozen=True)
class Mahalanobis:
    """The distance to the nearest class (Lee et al. 2018, "A simple unified framework ...")."""

    classes: Gaussian
    name: ClassVar[OodScore] = "mahalanobis"

    def __call__(self, logits: Logits, embedding: Embeddings) -> Floats:
        """The score of each image, float64 [N]."""
        return self.classes.distances(embedding)

    def add(self, graph: Additions, logits: str, embedding: str, output: str) -> None:
        """The squared distance."""
        self.classes.add(graph, embedding, "classes", output)


@dataclass(frozen=True)
class RelativeMahalanobis:
    """The same, less the distance to all images as one class (Ren et al. 2021, "A simple fix")."""

    classes: Gaussian
    whole: Gaussian
    name: ClassVar[OodScore] = "relative_mahalanobis"

    def __call__(self, logits: Logits, embedding: Embeddings) -> Floats:
        """The score of each image, float64 [N]."""
        return self.classes.distances(embedding) - self.whole.distances(embedding)

    def add(self, graph: Additions, logits: str, embedding: str, output: str) -> None:
        """The difference of the squared distances."""
        near = self.classes.add(graph, embedding, "classes")
        far = self.whole.add(graph, embedding, "whole")
        graph.node("Sub", near, far, output=output)


def fit_scores(embedding: Embeddings, labels: Ints) -> list[Score]:
    """All four, from the embeddings N×D of training images and their labels [N]; N > 0."""
    values = embedding.astype(np.float64)
    known, index = np.unique(labels, return_inverse=True)
    counts = np.bincount(index)[:, None]
    sums = np.zeros((len(known), values.shape[1]))
    np.add.at(sums, index, values)
    means = sums / counts
    centre = values.mean(0)
    within = _gaussian(values - means[index], centre, means)
    whole = _gaussian(values - centre, centre, centre[None])
    return [Energy(), MaxSoftmax(), Mahalanobis(within), RelativeMahalanobis(within, whole)]


def _gaussian(differences: Floats, centre: Floats, means: Floats) -> Gaussian:
    """Of differences from the means, with a shrunk covariance (Ledoit & Wolf 2004).

    In one thread: the same images give the same bytes, however many cores there are.
    """
    from sklearn.covariance import ledoit_wolf
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        covariance, _ = ledoit_wolf(differences, assume_centered=True)
        variances, directions = np.linalg.eigh(covariance)
        mean = float(variances.mean())
        kept = np.maximum(variances, _FLOOR * mean) if mean > 0 else np.ones(len(variances))
        whitening = directions / np.sqrt(kept)
        return Gaussian(centre, whitening, (means - centre) @ whitening)


def _softmax_parts(graph: Additions, logits: str) -> tuple[str, str]:
    """The largest logit, and the sum of all exponentials once it is taken off; both N×1."""
    highest = graph.node("ReduceMax", logits, graph.axes(1), keepdims=1)
    below = graph.node("Exp", graph.node("Sub", logits, highest))
    return highest, graph.node("ReduceSum", below, graph.axes(1), keepdims=1)
