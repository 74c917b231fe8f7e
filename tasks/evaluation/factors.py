"""Attributes of images as a few values each: what slices are made of.

Takes a column an attribute (`tasks.data.attributes`), gives `Factor`s. Numbers of many different
values are cut into fifths, and into their lower and upper two; of other values those that enough
images have stay.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tasks.metrics.classification import Bools, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

_BINS = 5  # of numbers, at most
_WIDE = (0.4, 0.6)
_FEW = 20  # different numbers up to which each is a value of its own


@dataclass(frozen=True)
class Factor:
    """One attribute of N images, K values of which enough of them have."""

    name: str
    conditions: list[str]
    """The values as a reader understands them: "brightness ≤ 0.213", "camera = B"."""
    codes: Ints
    """Which of them each image has, int64 [N]; K: another one."""


def factors_of(table: "pd.DataFrame", smallest: int) -> list[Factor]:
    """The attributes that tell images apart, values in at least `smallest` images each.

    One that has the same value in every image, or parts the images as an earlier one does, says
    nothing and is left out.
    """
    found, seen = [], set()
    for name in table.columns:
        for factor in (
            factor_of(str(name), table[name], smallest),
            _wider(str(name), table[name], smallest),
        ):
            parts = np.unique(factor.codes, return_index=True, return_inverse=True)
            alike = np.argsort(np.argsort(parts[1]))[parts[2]].tobytes()  # numbered as they appear
            if factor.conditions and len(parts[0]) > 1 and alike not in seen:
                seen.add(alike)
                found.append(factor)
    return found


def factor_of(name: str, column: "pd.Series", smallest: int) -> Factor:
    """An attribute's values in at least `smallest` images; "missing" is one."""
    missing, numbers = column.isna().to_numpy(), _numbers(column)
    if numbers is not None and len(np.unique(numbers[~missing])) > _FEW:
        bins = max(2, min(_BINS, int((~missing).sum()) // smallest))
        conditions, codes = _cut(name, numbers, ~missing, np.arange(1, bins) / bins)
    else:
        conditions, codes = _values(name, column, numbers)
    codes[missing] = len(conditions)
    return _frequent(Factor(name, [*conditions, f"{name} is missing"], codes), smallest)


def _wider(name: str, column: "pd.Series", smallest: int) -> Factor:
    """The lower and the upper two fifths of a number of many values; else without a value."""
    missing, numbers = column.isna().to_numpy(), _numbers(column)
    nothing = Factor(name, [], np.zeros(len(column), np.int64))
    if numbers is None or int((~missing).sum()) < _BINS * smallest:
        return nothing
    if len(np.unique(numbers[~missing])) <= _FEW:
        return nothing
    conditions, codes = _cut(name, numbers, ~missing, np.array(_WIDE))
    ends = np.full(len(conditions) + 1, 2)  # what lies between is a fifth of its own
    ends[[0, len(conditions) - 1]] = 0, 1
    codes[missing] = len(conditions)
    return _frequent(Factor(name, [conditions[0], conditions[-1]], ends[codes]), smallest)


def _numbers(column: "pd.Series") -> Floats | None:
    """The column as numbers, NaN where it is missing; None when it holds anything else."""
    import pandas as pd

    missing = column.isna().to_numpy()
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    numeric = bool(np.isfinite(numbers[~missing]).all()) and not missing.all()
    return numbers if numeric else None


def _cut(name: str, numbers: Floats, known: Bools, shares: Floats) -> tuple[list[str], Ints]:
    """Bins between these quantiles, as far as equal numbers allow; two at least."""
    edges = np.unique(np.quantile(numbers[known], shares, method="inverted_cdf"))
    values = np.unique(numbers[known])
    edges = edges[edges < values[-1]] if edges[0] < values[-1] else values[-2:-1]
    shown = _told_apart(edges)
    inner = [f"{a} < {name} ≤ {b}" for a, b in pairwise(shown)]
    conditions = [f"{name} ≤ {shown[0]}", *inner, f"{name} > {shown[-1]}"]
    return conditions, np.searchsorted(edges, numbers, side="left").astype(np.int64)


def _told_apart(edges: Floats) -> list[str]:
    """The numbers with as many digits as it takes that no two look alike, three at least."""
    digits = next(d for d in range(3, 18) if len({f"{e:.{d}g}" for e in edges}) == len(edges))
    return [f"{edge:.{digits}g}" for edge in edges]


def _values(name: str, column: "pd.Series", numbers: Floats | None) -> tuple[list[str], Ints]:
    """Every value for itself, in the order of the numbers or else of the text."""
    import pandas as pd

    codes, values = pd.factorize(column)
    if numbers is None:
        rank = np.array([str(value) for value in values])
    else:
        rank = np.array([numbers[codes == k][0] for k in range(len(values))])
    order = np.argsort(rank, kind="stable")
    place = np.empty(len(values) + 1, np.int64)
    place[order] = np.arange(len(values))
    return [f"{name} = {_shown(values[k])}" for k in order], place[codes]


def _shown(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _frequent(factor: Factor, smallest: int) -> Factor:
    """Without the values of fewer than `smallest` images."""
    size = len(factor.conditions)
    images = np.bincount(factor.codes, minlength=size + 1)[:size]
    kept = np.flatnonzero(images >= smallest)
    place = np.full(size + 1, len(kept))
    place[kept] = np.arange(len(kept))
    return Factor(factor.name, [factor.conditions[k] for k in kept], place[factor.codes])
