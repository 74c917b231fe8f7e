"""Finds the parts of the test images, described by attributes, on which a model does worse.

Every value of an attribute and every pair of values of two is a slice (Chung et al. 2019;
Sagadeeva & Boehm 2021 score the same lattice). Each is tested against the rest of the images, a
pair also against both of its halves, so that one that is explained by a half is not found; the
p are corrected for the number of slices that were looked at, by Holm's method: unlike that of the
false discovery rate its promise still holds when findings that others explain are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.evaluation.factors import Factor
from tasks.metrics.classification import Bools, Floats, Ints
from tasks.metrics.proportions import difference_intervals, exact_intervals, holm, more_than_chance

Values = tuple[tuple[int, int], ...]
"""What makes a slice: of each of its conditions the factor's index and the value's."""
_SHUFFLES = 100
_SAME = 0.8


@dataclass(frozen=True)
class Searched:
    """S slices of N images; row i of every array is the same slice."""

    factors: list[Factor]
    wrong: Bools
    """Whether each image is classified wrongly, [N]."""
    values: list[Values]
    images: Ints
    mistakes: Ints
    adjusted: Floats
    """p that it is worse than the rest (and than its halves), corrected for S."""
    low: Floats
    high: Floats
    """Interval of its accuracy, which holds for all S slices together."""
    loss: tuple[Floats, Floats, Floats]
    """Accuracy of the rest less that of the slice: value, low, high, for all S together."""
    level: float
    """Of each interval alone, so that all hold together at the confidence."""
    lowest_by_chance: float
    """The median of the lowest accuracy among these slices when the mistakes fall by chance."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def accuracy(self) -> Floats:
        """Share of the slice's images that are classified right, [S]."""
        return np.asarray(1 - self.mistakes / self.images)

    def found(self, confidence: float) -> list[int]:
        """Those that are worse, at this confidence in all of them, the largest sure loss first.

        One that is no longer worse once the images of those before it are set aside is explained
        by them and left out.
        """
        worse = self._worse(confidence)
        told = np.zeros(len(self.wrong), bool)
        kept: list[int] = []
        for index in worse[np.argsort(-self.loss[1][worse], kind="stable")].tolist():
            members = self.members(index)
            if not kept or len(worse) * self._worse_outside(told, members) <= 1 - confidence:
                kept.append(index)
                told |= members
        return kept

    def much_the_same(self, index: int, confidence: float) -> list[int]:
        """Others that are worse too and are, by four fifths of the images of both, the same."""
        ours, worse = self.members(index), self._worse(confidence)
        ratio = self.images[worse] / self.images[index]
        near = [k for k in worse[(ratio >= _SAME) & (ratio <= 1 / _SAME)].tolist() if k != index]
        shares = {k: (ours & (m := self.members(k))).sum() / (ours | m).sum() for k in near}
        return sorted((k for k in near if shares[k] >= _SAME), key=lambda k: -shares[k])

    def _worse(self, confidence: float) -> Ints:
        return np.flatnonzero(self.adjusted <= 1 - confidence)

    def _worse_outside(self, told: Bools, members: Bools) -> float:
        """The p that `members` are worse than the rest, both without `told`."""
        rest, ours = self.wrong[~told], self.wrong[members & ~told]
        counts = (np.array(x) for x in (ours.sum(), len(ours), rest.sum(), len(rest)))
        return float(more_than_chance(*counts))

    def worst(self) -> int | None:
        """The one of lowest accuracy, of several the largest; None when none was looked at."""
        if not len(self):
            return None
        return int(np.lexsort((-self.images, self.accuracy))[0])

    def name(self, index: int) -> str:
        """Its conditions, with "and" between them."""
        return " and ".join(self.factors[f].conditions[k] for f, k in self.values[index])

    def members(self, index: int) -> Bools:
        """Whether each image is in it, [N]."""
        parts = [self.factors[f].codes == k for f, k in self.values[index]]
        return np.asarray(np.logical_and.reduce(parts))


class _Mistakes(NamedTuple):
    """The rows of `images` images that are wrong, and as many rows drawn at random, often."""

    images: int
    rows: Ints
    shuffled: list[npt.NDArray[np.int64]]


class _Counted(NamedTuple):
    """The slices of one attribute or of two, and the lowest accuracy under each shuffle."""

    values: list[Values]
    images: Ints
    mistakes: Ints
    p: Floats
    lowest: Floats


def search(
    wrong: Bools, factors: list[Factor], smallest: int, depth: int, confidence: float, seed: int
) -> Searched:
    """Look at every slice of at least `smallest` images of up to `depth` (1 or 2) attributes.

    `wrong` is bool [N], one of an image. A pair that holds the same images as one of its halves
    is no other slice and is not looked at.
    """
    draws, rows = np.random.default_rng(seed), np.flatnonzero(wrong)
    shuffled = [draws.choice(len(wrong), len(rows), replace=False) for _ in range(_SHUFFLES)]
    seen = _Mistakes(len(wrong), rows, shuffled)
    parts = [*_singles(factors, smallest, seen)]
    if depth > 1:
        parts += _pairs(factors, smallest, seen)
    values = [value for part in parts for value in part.values]
    images = np.concatenate([np.empty(0, np.int64), *(part.images for part in parts)])
    mistakes = np.concatenate([np.empty(0, np.int64), *(part.mistakes for part in parts)])
    level = 1 - (1 - confidence) / max(len(images), 1)
    low, high = exact_intervals(images - mistakes, images, level)
    others = len(wrong) - images
    right = others - (len(rows) - mistakes), images - mistakes
    return Searched(
        factors=factors,
        wrong=wrong,
        values=values,
        images=images,
        mistakes=mistakes,
        adjusted=holm(np.concatenate([np.empty(0), *(part.p for part in parts)])),
        low=low,
        high=high,
        loss=difference_intervals(right, (others, images), level),
        level=level,
        lowest_by_chance=_median([part.lowest for part in parts]),
    )


def _singles(factors: list[Factor], smallest: int, seen: _Mistakes) -> Iterator[_Counted]:
    """The values of each attribute, against all images."""
    whole = np.array(seen.images), np.array(len(seen.rows))
    for f, factor in enumerate(factors):
        size = len(factor.conditions) + 1
        images = np.bincount(factor.codes, minlength=size)[:-1]
        kept = np.flatnonzero((images >= smallest) & (images < seen.images))
        yield _tested(factor.codes, kept, [((f, int(k)),) for k in kept], seen, [whole])


def _pairs(factors: list[Factor], smallest: int, seen: _Mistakes) -> Iterator[_Counted]:
    """The values of each two attributes, against all images and against both halves."""
    whole = np.array(seen.images), np.array(len(seen.rows))
    halves = [_counts(factor.codes, len(factor.conditions) + 1, seen) for factor in factors]
    for f, g in combinations(range(len(factors)), 2):
        if factors[f].name == factors[g].name:
            continue
        shape = len(halves[f][0]), len(halves[g][0])
        cells = factors[f].codes * shape[1] + factors[g].codes
        images = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
        narrower = images < np.minimum(halves[f][0][:, None], halves[g][0])
        first, second = np.nonzero(((images >= smallest) & narrower)[:-1, :-1])
        values: list[Values] = [
            ((f, int(k)), (g, int(m))) for k, m in zip(first, second, strict=True)
        ]
        against = [(count[0][at], count[1][at]) for count, at in (
            (halves[f], first), (halves[g], second)
        )]  # fmt: skip
        yield _tested(cells, first * shape[1] + second, values, seen, [whole, *against])


def _counts(cells: Ints, size: int, seen: _Mistakes) -> tuple[Ints, Ints]:
    """Images and mistakes in each cell, int64 [size] both."""
    return np.bincount(cells, minlength=size), np.bincount(cells[seen.rows], minlength=size)


def _tested(
    cells: Ints,
    kept: Ints,
    values: list[Values],
    seen: _Mistakes,
    against: list[tuple[Ints, Ints]],
) -> _Counted:
    """The `kept` cells; `against` holds images and mistakes of what each is compared with.

    The p of a slice is the largest of its tests: it is worse than each (Berger 1982).
    """
    if not len(kept):
        nothing = np.empty(0, np.int64)
        return _Counted([], nothing, nothing, np.empty(0), np.full(len(seen.shuffled), np.inf))
    size = int(kept.max()) + 1
    images, mistakes = (count[kept] for count in _counts(cells, size, seen))
    tests = [more_than_chance(mistakes, images, hits, among) for among, hits in against]
    drawn = [np.bincount(cells[rows], minlength=size)[kept] for rows in seen.shuffled]
    lowest = (1 - np.stack(drawn) / images).min(axis=1)
    return _Counted(values, images, mistakes, np.maximum.reduce(tests), lowest)


def _median(lowest: list[Floats]) -> float:
    """Of the lowest accuracy under each shuffle; NaN when there is no slice."""
    if not lowest or np.isinf(least := np.minimum.reduce(lowest)).any():
        return float("nan")
    return float(np.median(least))
