"""Many shares at once: exact intervals, intervals of differences, tests and their correction."""

import numpy as np
import numpy.typing as npt

from tasks.metrics.classification import Floats, Ints


def exact_intervals(hits: Ints, trials: Ints, confidence: float) -> tuple[Floats, Floats]:
    """Both ends of the exact interval of hits / trials [...] (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    missed = trials - hits
    low = betaincinv(np.maximum(hits, 1), missed + 1, tail)
    high = betaincinv(hits + 1, np.maximum(missed, 1), 1 - tail)
    return np.where(hits > 0, low, 0.0), np.where(missed > 0, high, 1.0)


def difference_intervals(
    hits: tuple[Ints, Ints], trials: tuple[Ints, Ints], confidence: float
) -> tuple[Floats, Floats, Floats]:
    """The first share minus the second, of other images: value, low, high [...].

    The hybrid score interval (Newcombe 1998, method 10), which has a width when nothing, or
    everything, was hit too.
    """
    (first, first_low, first_high), (second, second_low, second_high) = (
        _score_interval(*pair, confidence) for pair in zip(hits, trials, strict=True)
    )
    value = first - second
    below = np.hypot(first - first_low, second_high - second)
    above = np.hypot(first_high - first, second - second_low)
    return value, value - below, value + above


def more_than_chance(hits: Ints, drawn: Ints, all_hits: Ints, images: Ints) -> Floats:
    """The p, one-sided, of so many hits or more among those `drawn` of `images` with `all_hits`.

    Fisher's exact test of a part against the rest (Fisher 1934); all arguments [...] or numbers.
    """
    from scipy.stats import hypergeom

    return np.asarray(hypergeom.sf(np.asarray(hits) - 1, images, all_hits, drawn), np.float64)


def holm(p: npt.ArrayLike) -> Floats:
    """Adjust p [S] so that a level is the chance of any false alarm at it (Holm 1979)."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def _score_interval(hits: Ints, trials: Ints, confidence: float) -> tuple[Floats, Floats, Floats]:
    """The share hits / trials, and the ends of its score interval (Wilson 1927)."""
    from scipy.special import ndtri

    z = float(ndtri(1 - (1 - confidence) / 2))
    share = hits / trials
    scale = 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / scale
    half = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / scale
    return share, np.maximum(middle - half, 0), np.minimum(middle + half, 1)
