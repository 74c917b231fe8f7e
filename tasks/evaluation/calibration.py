"""Do the probabilities mean what they say? Measures it, mends it, folds the mend into the graph.

Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks") divides
the logits by one number fitted on validation images: it never changes the predicted class.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.errors import CompressionError
from tasks.evaluation.metrics import Floats, Ints
from tasks.files import atomic_write

# Beyond these the likelihood has no minimum worth the name: see `fit_temperature`.
LOWEST, HIGHEST = 0.05, 20.0

Logits = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature, and a sentence when the fit was not an ordinary one."""

    value: float
    note: str | None = None


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
    return np.exp(_log_softmax(logits.astype(np.float64) / temperature))


def negative_log_likelihood(logits: Logits, labels: Ints, temperature: float = 1.0) -> float:
    """Mean of -log p(label), in nats."""
    logarithms = _log_softmax(logits.astype(np.float64) / temperature)
    return float(-logarithms[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: Logits, labels: Ints) -> Temperature:
    """The temperature that minimises the validation NLL of logits N×C, labels [N].

    Where that has no minimum the guard says so in `note`: when every image is right the NLL
    falls forever as T goes to 0, so the labels are softened to (N+1)/(N+2) (Platt 1999); when
    the logits carry no information (T goes to infinity), or there are no images, T stays 1.
    """
    if not len(labels):
        return Temperature(1.0, "No validation images: the temperature stays 1.")
    scores = logits.astype(np.float64)
    every_right = bool((logits.argmax(1) == labels).all())
    softness = 1 / (len(labels) + 2) if every_right else 0.0
    value, gain = _minimise(scores, labels, softness)
    if value > HIGHEST * 0.99 or gain < 1e-9:
        return Temperature(1.0, "The validation logits do not tell a temperature: it stays 1.")
    if value < LOWEST * 1.01:
        return Temperature(value, f"The temperature ended at its lower bound, {LOWEST}.")
    if every_right:
        return Temperature(
            value,
            f"All {len(labels)} validation images are classified right, which fits no finite "
            "temperature: their labels were softened (Platt 1999).",
        )
    return Temperature(value)


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


def fold_temperature(source: Path, temperature: float, target: Path) -> None:
    """Write the graph of `source` with softmax(logits / T) folded in, as one file.

    Output "logits" becomes "probabilities" (float32 N×C); every other output is kept. Raises
    CompressionError when there is no output "logits", or T is not a positive number.
    """
    import onnx
    from onnx import TensorProto, helper

    if not (np.isfinite(temperature) and temperature > 0):
        raise CompressionError(f"temperature {temperature} is not a positive number")
    model = onnx.load(source)
    logits = next((output for output in model.graph.output if output.name == "logits"), None)
    if logits is None:
        raise CompressionError(f'{source} has no output "logits" to calibrate')
    divisor = helper.make_tensor("temperature", TensorProto.FLOAT, [], [temperature])
    model.graph.initializer.append(divisor)
    model.graph.node.extend(
        [
            helper.make_node("Div", ["logits", "temperature"], ["scaled"], "calibrate"),
            helper.make_node("Softmax", ["scaled"], ["probabilities"], "softmax", axis=-1),
        ]
    )
    model.graph.value_info.append(logits)
    logits.name = "probabilities"
    onnx.checker.check_model(model, full_check=True)
    with atomic_write(target) as stream:
        stream.write(model.SerializeToString(deterministic=True))


def _minimise(logits: Floats, labels: Ints, softness: float) -> tuple[float, float]:
    """The best temperature and how much lower the objective is there than at 1."""
    from scipy.optimize import minimize_scalar

    true = logits[np.arange(len(labels)), labels]
    target = (1 - softness) * true + softness * logits.mean(1)

    def objective(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((_logsumexp(scaled) - target / np.exp(log_temperature)).mean())

    result = minimize_scalar(
        objective,
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(np.exp(result.x)), objective(0.0) - float(result.fun)


def _logsumexp(values: Floats) -> Floats:
    highest = values.max(1)
    return np.asarray(highest + np.log(np.exp(values - highest[:, None]).sum(1)))


def _log_softmax(values: Floats) -> Floats:
    return values - _logsumexp(values)[:, None]
