"""Two models on the same images, figure by figure and image by image: what a change would change.

Takes what each says of the images, gives `SideBySide`, whose differences are all of pairs: B's
less A's on the same image. Pure: who predicts, and on which images, is the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.bundle import BundleInfo
from tasks.errors import BundleError
from tasks.evaluation.compare import mcnemar
from tasks.metrics.bootstrap import mean_interval, paired_difference
from tasks.metrics.classification import Bools, Floats, Ints
from tasks.metrics.reliability import reliability
from tasks.schema import Evaluate

Span = tuple[float, float, float]
"""Value, low end, high end."""
_LEAST = 1e-12  # probability below which the likelihood does not count further


@dataclass(frozen=True)
class Side:
    """A model and what it says: probabilities N×C, in the order of its own classes."""

    title: str
    digest: str
    info: BundleInfo
    metrics: dict[str, Any] | None
    probabilities: Floats

    def of(self, rows: npt.NDArray[np.bool_]) -> "Side":
        """The same model on a part of the images."""
        part = self.probabilities[rows]
        return Side(self.title, self.digest, self.info, self.metrics, part)

    @cached_property
    def said(self) -> npt.NDArray[np.object_]:
        """The predicted class by name, [N]."""
        return np.asarray(np.array(self.info.classes, object)[self.probabilities.argmax(1)])

    def labels(self, names: npt.NDArray[np.object_]) -> Ints:
        """Names of classes as positions among the model's own, int64 [N]."""
        index = {name: position for position, name in enumerate(self.info.classes)}
        return np.array([index[name] for name in names], np.int64)

    def figure(self, *keys: str) -> float | None:
        """A figure of metrics.json by its keys; None where it was not measured."""
        found: Any = self.metrics
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return float(found) if isinstance(found, int | float) else None


@dataclass(frozen=True)
class ClassChange:
    """What becomes of one class: its images, both recalls and the paired difference."""

    name: str
    images: int
    a: float
    b: float
    change: Span
    p_value: float
    """Of McNemar's test, corrected for all the classes that are looked at (Holm 1979)."""


@dataclass(frozen=True)
class ChangedImage:
    """An image of which just one model is right; `row` is its position among all images."""

    row: int
    label: str
    said: tuple[str, str]
    confidence: tuple[float, float]


@dataclass(frozen=True)
class SideBySide:
    """What differs when B takes A's place. Shares are in 0..1."""

    a: Side
    b: Side
    images: int
    left_out: int
    """Images of a class that one of the two does not know."""
    accuracy: tuple[float, float]
    difference: Span
    p_value: float
    agreement: float
    calibration_error: tuple[float, float]
    nll: tuple[float, float]
    nll_difference: Span
    classes: list[ClassChange]
    """Those that both know and that have images, the worst change first."""
    fixed: list[ChangedImage]
    """Right with B alone, the surest mistakes of A first."""
    broken: list[ChangedImage]
    """Right with A alone, the surest mistakes of B first."""

    @property
    def only(self) -> tuple[list[str], list[str]]:
        """The classes that A alone, and that B alone, knows."""
        first, second = set(self.a.info.classes), set(self.b.info.classes)
        return sorted(first - second), sorted(second - first)

    @property
    def verdict(self) -> str:
        """What the images say, in a sentence."""
        value, low, high = (100 * share for share in self.difference)
        if low <= 0 <= high:
            told = "the images do not tell the two apart"
        else:
            told = f"{self.b.title} is {'better' if low > 0 else 'worse'}"
        return (
            f"{value:+.1f} points of accuracy ({low:+.1f} to {high:+.1f}) on {self.images:,} "
            f"images: {told}. {len(self.fixed):,} images come right, {len(self.broken):,} go wrong."
        )


def side_by_side(
    a: Side, b: Side, names: Sequence[str] | npt.NDArray[np.object_], params: Evaluate
) -> SideBySide:
    """Compare two models on the images whose class, by name [N], both of them know.

    Raises BundleError when there are none.
    """
    named = np.array(names, object)
    known = np.isin(named.astype(str), list(set(a.info.classes) & set(b.info.classes)))
    if not known.any():
        raise BundleError(
            f"{a.title} and {b.title} have no class in common of which there are test images"
        )
    labels, rows = named[known], np.flatnonzero(known)
    a, b = a.of(known), b.of(known)
    right = (a.said == labels, b.said == labels)
    settings = (params.resamples, params.confidence, params.seed)
    losses = [_losses(side, labels) for side in (a, b)]
    return SideBySide(
        a=a,
        b=b,
        images=len(labels),
        left_out=int((~known).sum()),
        accuracy=(float(right[0].mean()), float(right[1].mean())),
        difference=paired_difference(right[0], right[1], *settings),
        p_value=mcnemar(right[0], right[1]),
        agreement=float((a.said == b.said).mean()),
        calibration_error=(
            _calibration_error(a, labels, params),
            _calibration_error(b, labels, params),
        ),
        nll=(float(losses[0].mean()), float(losses[1].mean())),
        nll_difference=mean_interval(losses[1] - losses[0], *settings),
        classes=_by_class(right, labels, settings),
        fixed=_changed(a, b, labels, rows, right[1] & ~right[0], surest=0),
        broken=_changed(a, b, labels, rows, right[0] & ~right[1], surest=1),
    )


def _losses(side: Side, labels: npt.NDArray[np.object_]) -> Floats:
    """-log p(label) of each image, float64 [N]."""
    of_label = side.probabilities[np.arange(len(labels)), side.labels(labels)]
    return np.asarray(-np.log(np.maximum(of_label.astype(np.float64), _LEAST)))


def _calibration_error(side: Side, labels: npt.NDArray[np.object_], params: Evaluate) -> float:
    positions = side.labels(labels)
    return reliability(side.probabilities, positions, params.calibration_bins).error


def _by_class(
    right: tuple[Bools, Bools], labels: npt.NDArray[np.object_], settings: tuple[int, float, int]
) -> list[ClassChange]:
    names, which = np.unique(labels.astype(str), return_inverse=True)
    rows = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    own = [(right[0][own], right[1][own]) for own in rows]
    p_values = _holm([mcnemar(*pair) for pair in own])
    found = [
        ClassChange(
            name=str(name),
            images=len(old),
            a=float(old.mean()),
            b=float(new.mean()),
            change=paired_difference(old, new, *settings),
            p_value=p_value,
        )
        for name, (old, new), p_value in zip(names, own, p_values, strict=True)
    ]
    return sorted(found, key=lambda one: one.change[0])


def _holm(p_values: list[float]) -> list[float]:
    """Step-down correction: the k-th smallest of n counts n - k + 1 times."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in corrected]


def _changed(
    a: Side,
    b: Side,
    labels: npt.NDArray[np.object_],
    rows: npt.NDArray[np.intp],
    changed: Bools,
    surest: int,
) -> list[ChangedImage]:
    confidence = np.stack([a.probabilities.max(1), b.probabilities.max(1)], axis=1)
    found = np.flatnonzero(changed)
    order = found[np.argsort(-confidence[found, surest], kind="stable")]
    return [
        ChangedImage(
            row=int(rows[i]),
            label=str(labels[i]),
            said=(str(a.said[i]), str(b.said[i])),
            confidence=(float(confidence[i, 0]), float(confidence[i, 1])),
        )
        for i in order
    ]
