"""Compares declared groups of test images: whether a model serves one worse than another.

Takes the values of one attribute (`tasks.evaluation.factors`), gives each group's figures, the
largest gap in accuracy and how easily chance gives one as large.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.evaluation.factors import Factor
from tasks.metrics.classification import Bools, Floats, Ints, confusion_matrix, recall_by_class
from tasks.metrics.proportions import difference_intervals, exact_intervals, holm
from tasks.pages.render import percent

Triple = tuple[float, float, float]
_ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class Group:
    """The images with one value of the attribute; shares in 0..1."""

    name: str
    images: int
    accuracy: Triple
    by_its_classes: float
    """The accuracy that its mix of classes explains: each image at its class's recall."""
    macro_recall: float | None
    """Over the classes that every group has; None when there are none."""


@dataclass(frozen=True)
class Spread:
    """The class whose false alarms differ most: share of other classes' images taken for it."""

    class_name: str
    most: str
    highest: float
    least: str
    lowest: float


@dataclass(frozen=True)
class Compared:
    """The groups of one attribute, the worst first; no gap with fewer than two of them."""

    attribute: str
    groups: list[Group]
    left_out: int
    """Images whose value too few others have."""
    confidence: float
    gap: Triple | None
    p: float | None
    """Of a gap as large between groups drawn at random, corrected for the declared attributes."""
    spread: Spread | None

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json."""
        groups = {
            group.name: vars(group) | {"accuracy": dict(zip(_ENDS, group.accuracy, strict=True))}
            for group in self.groups
        }
        return {
            "groups": groups,
            "images_left_out": self.left_out,
            "accuracy_gap": self.gap and dict(zip(_ENDS, self.gap, strict=True)),
            "adjusted_p": self.p,
            "false_positive_spread": self.spread and vars(self.spread),
        }

    def sentence(self) -> str:
        """What a reader must know, in a few sentences."""
        if self.gap is None or self.p is None:
            return f"{self.attribute}: fewer than two groups are large enough to be compared."
        worst, best = self.groups[0], self.groups[-1]
        value, low, high = (100 * share for share in self.gap)
        told = "more than chance gives" if self.p <= 1 - self.confidence else "no more than chance"
        said = (
            f"{self.attribute}: accuracy differs by up to {value:.1f} points ({low:.1f} to "
            f"{high:.1f}), {percent(worst.accuracy[0])} with {worst.name} ({worst.images:,} "
            f"images) against {percent(best.accuracy[0])} with {best.name} ({best.images:,}). "
            f"That is {told} (p {self.p:.2g}); the mix of classes explains "
            f"{100 * (best.by_its_classes - worst.by_its_classes):.1f} points."
        )
        if self.spread:
            one = self.spread
            said += (
                f" False alarms differ most for {one.class_name}: {percent(one.highest)} of the "
                f"other images with {one.most}, {percent(one.lowest)} with {one.least}."
            )
        return said


def compare_all(
    factors: list[Factor],
    labels: Ints,
    predicted: Ints,
    classes: tuple[str, ...],
    confidence: float,
    shuffles: int,
    seed: int,
) -> list[Compared]:
    """Compare the groups of each declared attribute; `labels` and `predicted` are int64 [N]."""
    found = [
        compare(factor, labels, predicted, classes, confidence, shuffles, seed)
        for factor in factors
    ]
    known = [one.p for one in found if one.p is not None]
    adjusted = iter(holm(known).tolist())
    return [one if one.p is None else replace(one, p=next(adjusted)) for one in found]


def compare(
    factor: Factor,
    labels: Ints,
    predicted: Ints,
    classes: tuple[str, ...],
    confidence: float,
    shuffles: int,
    seed: int,
) -> Compared:
    """Compare the values of one attribute as groups; p is not corrected yet."""
    wrong, size = predicted != labels, len(factor.conditions)
    inside = factor.codes < size
    images = np.bincount(factor.codes, minlength=size + 1)[:size]
    mistakes = np.bincount(factor.codes[wrong], minlength=size + 1)[:size]
    order = np.argsort(mistakes / np.maximum(images, 1), kind="stable")[::-1]
    groups = _groups(factor, labels, predicted, classes, confidence)
    gap = p = spread = None
    if size > 1:
        ends, right = order[[-1, 0]], images - mistakes
        value, low, high = difference_intervals(tuple(right[ends]), tuple(images[ends]), confidence)
        gap = float(value), float(low), float(high)
        p = _chance(images, mistakes, shuffles, seed)
        spread = _spread(factor, labels, predicted, classes)
    return Compared(
        attribute=factor.name,
        groups=[groups[k] for k in order],
        left_out=int((~inside).sum()),
        confidence=confidence,
        gap=gap,
        p=p,
        spread=spread,
    )


def _groups(
    factor: Factor, labels: Ints, predicted: Ints, classes: tuple[str, ...], confidence: float
) -> list[Group]:
    recall = recall_by_class(predicted, labels, len(classes))
    members = [factor.codes == k for k in range(len(factor.conditions))]
    tables = [confusion_matrix(labels[m], predicted[m], len(classes)) for m in members]
    shared = np.logical_and.reduce([table.sum(1) > 0 for table in tables])
    return [
        _group(name, table, recall[labels[m]], shared, confidence)
        for name, table, m in zip(factor.conditions, tables, members, strict=True)
    ]


def _group(name: str, confusion: Ints, expected: Floats, shared: Bools, confidence: float) -> Group:
    hits, images = np.diag(confusion), int(confusion.sum())
    low, high = exact_intervals(hits.sum(), np.asarray(images), confidence)
    recall = hits[shared] / confusion.sum(1)[shared]
    return Group(
        name=name,
        images=images,
        accuracy=(float(hits.sum() / images), float(low), float(high)),
        by_its_classes=float(expected.mean()),
        macro_recall=float(recall.mean()) if shared.any() else None,
    )


def _chance(images: Ints, mistakes: Ints, shuffles: int, seed: int) -> float:
    """How often groups of these sizes have a gap as large when the mistakes fall by chance."""
    draws = np.random.default_rng(seed)
    drawn = draws.multivariate_hypergeometric(images, int(mistakes.sum()), shuffles, "marginals")
    gaps, gap = np.ptp(drawn / images, axis=1), np.ptp(mistakes / images)
    return float((1 + (gaps >= gap - 1e-12).sum()) / (1 + shuffles))


def _spread(
    factor: Factor, labels: Ints, predicted: Ints, classes: tuple[str, ...]
) -> Spread | None:
    """Of the classes predicted wrongly at all, the one with the largest spread; else None."""
    size, n_classes = len(factor.conditions), len(classes)
    shape = (size + 1, n_classes)
    cells = factor.codes * n_classes
    wrong = predicted != labels
    length = shape[0] * shape[1]
    alarms = np.bincount((cells + predicted)[wrong], minlength=length).reshape(shape)[:size]
    support = np.bincount(cells + labels, minlength=length).reshape(shape)[:size]
    others = support.sum(1, keepdims=True) - support
    comparable = (others > 0).all(0)
    if not (alarms.any(0) & comparable).any():
        return None
    rate = alarms / np.maximum(others, 1)
    one = int(np.argmax(np.where(comparable, np.ptp(rate, axis=0), -1)))
    most, least = int(rate[:, one].argmax()), int(rate[:, one].argmin())
    return Spread(
        classes[one],
        factor.conditions[most],
        float(rate[most, one]),
        factor.conditions[least],
        float(rate[least, one]),
    )
