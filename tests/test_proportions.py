"""Shares, differences and tests against SciPy and statsmodels' published values."""

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from tasks.metrics.proportions import difference_intervals, exact_intervals, holm, more_than_chance


def test_intervals_are_those_of_scipy_at_the_ends_too():
    hits, trials = np.array([0, 3, 17, 60, 60]), np.array([12, 40, 40, 61, 60])
    low, high = exact_intervals(hits, trials, 0.99)
    for k in range(len(hits)):
        expected = binomtest(int(hits[k]), int(trials[k])).proportion_ci(0.99)
        assert (low[k], high[k]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_difference_is_newcombe_s_example():
    """Newcombe 1998, Table II, method 10: 56/70 against 48/80, 10/10 against 0/20."""
    value, low, high = difference_intervals(
        (np.array([56, 10]), np.array([48, 0])), (np.array([70, 10]), np.array([80, 20])), 0.95
    )
    np.testing.assert_allclose(value, [0.2, 1.0])
    np.testing.assert_allclose(low, [0.0524, 0.6791], atol=5e-5)
    np.testing.assert_allclose(high, [0.3339, 1.0], atol=5e-5)


def test_the_test_is_fisher_s():
    for hits, drawn, all_hits, images in ((9, 30, 20, 200), (0, 30, 20, 200), (20, 30, 20, 200)):
        table = [[hits, drawn - hits], [all_hits - hits, images - drawn - all_hits + hits]]
        found = more_than_chance(*(np.array([x]) for x in (hits, drawn, all_hits, images)))
        assert found[0] == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.9: times 4, 3, 2, 1, and never below the one before."""
    np.testing.assert_allclose(holm([0.02, 0.9, 0.01, 0.03]), [0.06, 0.9, 0.04, 0.06])
    assert holm([]).shape == (0,)
    assert holm([0.6, 0.7]).tolist() == [1, 1]
