"""Fits one temperature, by which logits are divided so that the probabilities mean what they say.

Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks") never changes
the predicted class.
"""

from dataclasses import dataclass

import numpy as np

from tasks.metrics.classification import Floats, Ints
from tasks.metrics.reliability import Logits, log_softmax

# Beyond these the likelihood has no minimum worth the name: see `fit_temperature`.
LOWEST, HIGHEST = 0.05, 20.0


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature, and a sentence when the fit was not an ordinary one."""

    value: float
    note: str | None = None


def fit_temperature(logits: Logits, labels: Ints) -> Temperature:
    """The temperature that minimises the validation NLL of logits N×C and softened labels [N].

    Where that tells little `note` says so: when every image is right the temperature hangs on
    the softening alone; when the logits carry no information (T goes to infinity), or there are
    no images, T stays 1.
    """
    if not len(labels):
        return Temperature(1.0, "No validation images: the temperature stays 1.")
    value, gain = _minimise(logits.astype(np.float64), labels)
    if value > HIGHEST * 0.99 or gain < 1e-9:
        return Temperature(1.0, "The validation logits do not tell a temperature: it stays 1.")
    if value < LOWEST * 1.01:
        return Temperature(value, f"The temperature ended at its lower bound, {LOWEST}.")
    if bool((logits.argmax(1) == labels).all()):
        return Temperature(
            value,
            f"All {len(labels)} validation images are classified right, which fits no finite "
            "temperature: that their labels are softened (Platt 1999) decides alone.",
        )
    return Temperature(value)


def softness(images: int) -> float:
    """How much of its label an image leaves to all classes alike: 1 / (N + 2) (Platt 1999).

    Among N images none may be wrong, or one by luck, and the likelihood alone then asks for more
    certainty than N images can give: of validation images that a model was chosen by all the more.
    """
    return 1 / (images + 2)


def soft_loss(logarithms: Floats, labels: Ints, images: int) -> Floats:
    """The loss of each image under its softened label, float64 [N], of log-probabilities N×C."""
    share = softness(images)
    true = logarithms[np.arange(len(labels)), labels]
    return np.asarray(-(1 - share) * true - share * logarithms.mean(1))


def _minimise(logits: Floats, labels: Ints) -> tuple[float, float]:
    """The best temperature and how much lower the objective is there than at 1."""
    from scipy.optimize import minimize_scalar

    def objective(log_temperature: float) -> float:
        logarithms = log_softmax(logits / np.exp(log_temperature))
        return float(soft_loss(logarithms, labels, len(labels)).mean())

    result = minimize_scalar(
        objective,
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(np.exp(result.x)), objective(0.0) - float(result.fun)
