"""Chooses how the probabilities are mended: by cross-validation on the validation images."""

from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from tasks.evaluation.calibrators import Calibrator, fit
from tasks.evaluation.temperature import soft_loss
from tasks.metrics.classification import Floats, Ints
from tasks.metrics.reliability import Logits
from tasks.schema import CalibrationMethod

METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
FOLDS = 5
_SURE = 2  # standard errors: of two other methods one is a little better by luck, often
_FEWEST = 10 * FOLDS  # validation images below which only a temperature is fitted
TITLES: dict[CalibrationMethod, str] = {
    "temperature": "temperature scaling",
    "vector": "vector scaling",
    "isotonic": "isotonic regression",
}


@dataclass(frozen=True)
class HeldOut:
    """A method on validation images that it was not fitted on: NLL in nats."""

    nll: float
    gain: float
    """How much lower than with a temperature alone, on the same images."""
    error: float
    """Standard error of the gain."""


@dataclass(frozen=True)
class Calibration:
    """The calibrator, why it is that one, and the methods side by side where there was a choice."""

    calibrator: Calibrator
    reason: str
    held_out: dict[CalibrationMethod, HeldOut] = field(default_factory=dict)

    @property
    def method(self) -> CalibrationMethod:
        """Its name."""
        return self.calibrator.method

    @property
    def title(self) -> str:
        """Its name for people."""
        return TITLES[self.method]

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json."""
        methods = {name: vars(found) for name, found in self.held_out.items()}
        return {"method": self.method, "reason": self.reason, "cross_validated": methods}


def calibrate(asked: str, logits: Logits, labels: Ints, seed: int) -> Calibration:
    """Fit the method `asked` for, or with "auto" the best, to validation logits N×C, labels [N].

    "auto" takes a temperature, unless another method has a lower NLL on held-out images by more
    than two standard errors of the difference. Where the images are few, or do not even tell a
    temperature, nothing else is tried.
    """
    plain = fit("temperature", logits, labels)
    if asked == "auto" and (len(labels) < _FEWEST or plain.temperature.note):
        few = f"There are {len(labels)} validation images, fewer than {_FEWEST}."
        why = plain.temperature.note or few
        return Calibration(plain, f"{why} So nothing but a temperature was tried.")
    found = cross_validate(logits, labels, seed) if len(labels) >= FOLDS else {}
    if asked != "auto":
        method = next(name for name in METHODS if name == asked)
        return Calibration(fit(method, logits, labels), "Asked for.", found)
    best = min(found, key=lambda name: found[name].nll)
    if found[best].gain > _SURE * found[best].error:
        told = f"{found[best].gain:.4f} (standard error {found[best].error:.4f})"
        reason = f"Its NLL on held-out validation images is lower by {told} than a temperature's."
        return Calibration(fit(best, logits, labels), reason, found)
    reason = "No other method is better on held-out validation images by two standard errors."
    return Calibration(plain, reason, found)


def alike(other: Calibration, logits: Logits, labels: Ints) -> Calibration:
    """The method of another model, fitted to the logits of this one."""
    return Calibration(fit(other.method, logits, labels), "As the deployed model.")


def cross_validate(logits: Logits, labels: Ints, seed: int) -> dict[CalibrationMethod, HeldOut]:
    """Every method, in FOLDS folds that are stratified and drawn with the seed."""
    losses = {method: _losses(method, logits, labels, seed) for method in METHODS}
    found = {}
    for method, loss in losses.items():
        gains = losses["temperature"] - loss
        error = float(gains.std(ddof=1) / np.sqrt(len(gains)))
        found[method] = HeldOut(float(loss.mean()), float(gains.mean()), error)
    return found


def _losses(method: CalibrationMethod, logits: Logits, labels: Ints, seed: int) -> Floats:
    """The loss of each image by a calibrator that has not seen it, float64 [N].

    The labels are softened as in the fits: else, of images that are all right or nearly, the
    method that is surest wins.
    """
    folds, losses = _folds(labels, seed), np.zeros(len(labels))
    for fold in range(FOLDS):
        out = folds == fold
        calibrator = fit(method, logits[~out], labels[~out])
        losses[out] = soft_loss(calibrator.logarithms(logits[out]), labels[out], len(labels))
    return losses


def _folds(labels: Ints, seed: int) -> Ints:
    """The fold of each image: those of a class are spread over all of them."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.zeros(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds
