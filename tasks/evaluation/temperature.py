"""Fits one temperature, by which logits are divided so that the probabilities mean what they say.

Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks") never changes
the predicted class.
"""

from dataclasses import dataclass

import numpy as np

from tasks.metrics.classification import Floats, Ints
from tasks.metrics.reliability import Logits, logsumexp

# Beyond these the likelihood has no minimum worth the name: see `fit_temperature`.
LOWEST, HIGHEST = 0.05, 20.0


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature, and a sentence when the fit was not an ordinary one."""

    value: float
    note: str | None = None


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


def _minimise(logits: Floats, labels: Ints, softness: float) -> tuple[float, float]:
    """The best temperature and how much lower the objective is there than at 1."""
    from scipy.optimize import minimize_scalar

    true = logits[np.arange(len(labels)), labels]
    target = (1 - softness) * true + softness * logits.mean(1)

    def objective(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((logsumexp(scaled) - target / np.exp(log_temperature)).mean())

    result = minimize_scalar(
        objective,
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(np.exp(result.x)), objective(0.0) - float(result.fun)
