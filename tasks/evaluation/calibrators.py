"""Three ways to mend probabilities, each in numpy and as nodes of the graph.

All begin with one temperature (`tasks.evaluation.temperature`): vector scaling and isotonic
regression mend what it leaves, and may change the predicted class.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from tasks.evaluation.additions import Additions
from tasks.evaluation.temperature import Temperature, fit_temperature, soft_loss, softness
from tasks.metrics.classification import Floats, Ints
from tasks.metrics.reliability import Logits, log_softmax
from tasks.schema import CalibrationMethod

# Of vector scaling: how far scales may be from 1, biases from 0 (deviations of a Gaussian prior).
_SCALE, _BIAS = 0.5, 1.0
# Of isotonic regression: where the piecewise linear function bends. Closer together, it could be
# so steep that the rounding of a float32 would show in its value.
KNOTS = np.concatenate([[0.0], 1 / (1 + np.exp(-np.linspace(-6, 6, 25))), [1.0]])
_RISE = 1e-3  # share of the identity in it: without, classes on one step would tie


class Calibrator(Protocol):
    """Logits N×C → calibrated probabilities."""

    method: ClassVar[CalibrationMethod]

    @property
    def temperature(self) -> Temperature:
        """The one that it begins with."""

    @property
    def steepness(self) -> float:
        """How much the rounding of a probability may grow on its way through."""

    def logarithms(self, logits: Logits) -> Floats:
        """Logarithms of the probabilities, float64 N×C."""

    def add(self, graph: Additions, logits: str, output: str) -> None:
        """The same as nodes, from the logits to `output`."""


@dataclass(frozen=True)
class TemperatureScaling:
    """softmax(z / T)."""

    temperature: Temperature
    method: ClassVar[CalibrationMethod] = "temperature"
    steepness: ClassVar[float] = 1.0

    def logarithms(self, logits: Logits) -> Floats:
        """Logarithms of the probabilities, float64 N×C."""
        return log_softmax(logits.astype(np.float64) / self.temperature.value)

    def add(self, graph: Additions, logits: str, output: str) -> None:
        """A division and a softmax."""
        divisor = graph.constant("temperature", self.temperature.value)
        scaled = graph.node("Div", logits, divisor)
        graph.node("Softmax", scaled, output=output, axis=-1)


@dataclass(frozen=True)
class VectorScaling:
    """softmax(w ⊙ z / T + b): a scale and a bias for each class (Guo et al. 2017)."""

    temperature: Temperature
    scale: Floats
    bias: Floats
    method: ClassVar[CalibrationMethod] = "vector"
    steepness: ClassVar[float] = 1.0

    def logarithms(self, logits: Logits) -> Floats:
        """Logarithms of the probabilities, float64 N×C."""
        scale = self.scale / self.temperature.value
        return log_softmax(logits.astype(np.float64) * scale + self.bias)

    def add(self, graph: Additions, logits: str, output: str) -> None:
        """A product, a sum and a softmax."""
        scale = graph.constant("scale", self.scale / self.temperature.value)
        scaled = graph.node("Mul", logits, scale)
        shifted = graph.node("Add", scaled, graph.constant("bias", self.bias))
        graph.node("Softmax", shifted, output=output, axis=-1)


@dataclass(frozen=True)
class IsotonicScaling:
    """Each class's probability through a rising function of its own, then made to sum to 1.

    Zadrozny & Elkan 2002, "Transforming classifier scores into accurate multiclass probability
    estimates". `heights` C×K are the functions at KNOTS, above 0 and rising; between, they are
    straight.
    """

    temperature: Temperature
    heights: Floats
    method: ClassVar[CalibrationMethod] = "isotonic"

    @property
    def steepness(self) -> float:
        """Of the steepest part; at least 1."""
        return float(max(1.0, (np.diff(self.heights, axis=1) / np.diff(KNOTS)).max()))

    def logarithms(self, logits: Logits) -> Floats:
        """Logarithms of the probabilities, float64 N×C."""
        given = np.exp(log_softmax(logits.astype(np.float64) / self.temperature.value))
        pairs = zip(given.T, self.heights, strict=True)
        risen = np.stack([np.interp(column, KNOTS, height) for column, height in pairs], axis=1)
        return np.asarray(np.log(risen / risen.sum(1, keepdims=True)))

    def add(self, graph: Additions, logits: str, output: str) -> None:
        """As the sum of ramps between the knots, each from 0 to what the function rises there."""
        divisor = graph.constant("temperature", self.temperature.value)
        given = graph.node("Softmax", graph.node("Div", logits, divisor), axis=-1)
        column = graph.node("Unsqueeze", given, graph.axes(2))  # N×C×1, then N×C×K
        beyond = graph.node("Sub", column, graph.constant("knots", KNOTS[:-1]))
        part = graph.node("Div", beyond, graph.constant("widths", np.diff(KNOTS)))
        ends = graph.constant("zero", 0.0), graph.constant("one", 1.0)
        ramps = graph.node("Clip", part, *ends)
        rises = graph.constant("rises", np.diff(self.heights, axis=1))
        risen = graph.sum(graph.node("Mul", ramps, rises), len(KNOTS) - 1)
        above = graph.node("Squeeze", risen, graph.axes(2))
        whole = graph.node("Add", above, graph.constant("base", self.heights[:, 0]))
        graph.node("Div", whole, graph.sum(whole, len(self.heights)), output=output)


def fit(method: CalibrationMethod, logits: Logits, labels: Ints) -> Calibrator:
    """The calibrator of that name for validation logits N×C and labels [N]."""
    temperature = fit_temperature(logits, labels)
    if method == "temperature" or not len(labels):
        return TemperatureScaling(temperature)
    scaled = logits.astype(np.float64) / temperature.value
    if method == "vector":
        return VectorScaling(temperature, *_fit_vector(scaled, labels))
    return IsotonicScaling(temperature, _fit_isotonic(np.exp(log_softmax(scaled)), labels))


def _fit_vector(scaled: Floats, labels: Ints) -> tuple[Floats, Floats]:
    """Scales and biases of the least regularised NLL of softened labels; both float64 [C].

    The prior holds them near 1 and 0 where the images are few: of a class that no validation
    image shows, the likelihood alone would send the bias to minus infinity.
    """
    from scipy.optimize import minimize

    count, classes = scaled.shape
    truth = np.full(scaled.shape, softness(count) / classes)
    truth[np.arange(count), labels] += 1 - softness(count)

    def objective(values: Floats) -> tuple[float, Floats]:
        scale, bias = values[:classes], values[classes:]
        logarithms = log_softmax(scaled * scale + bias)
        wrong = np.exp(logarithms) - truth
        loss = soft_loss(logarithms, labels, count).sum()
        loss += ((scale - 1) ** 2).sum() / (2 * _SCALE**2) + (bias**2).sum() / (2 * _BIAS**2)
        slopes = (wrong * scaled).sum(0) + (scale - 1) / _SCALE**2
        return loss / count, np.concatenate([slopes, wrong.sum(0) + bias / _BIAS**2]) / count

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return found.x[:classes], found.x[classes:]


def _fit_isotonic(given: Floats, labels: Ints) -> Floats:
    """Each class against the rest, read off at KNOTS: float64 C×K, rising and above 0.

    The targets are softened (Platt 1999), so no probability is 0 and no image loses all of them.
    A class that no image shows keeps its probabilities.
    """
    from sklearn.isotonic import IsotonicRegression

    heights = np.tile(KNOTS, (given.shape[1], 1))
    for index in np.unique(labels):
        positive = labels == index
        images = int(positive.sum())
        few, many = 1 / (len(labels) - images + 2), (images + 1) / (images + 2)
        targets = np.where(positive, many, few)
        found = IsotonicRegression(out_of_bounds="clip").fit(given[:, index], targets)
        heights[index] = (1 - _RISE) * found.predict(KNOTS) + _RISE * KNOTS
    return heights
