"""How well scores tell two sets apart, by hand."""

import numpy as np
import pytest

from tasks.metrics.strangeness import area, missed, threshold


def test_area_counts_the_pairs_in_order_and_ties_as_halves():
    usual, strange = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0])
    pairs = [(s > u) + 0.5 * (s == u) for u in usual for s in strange]
    assert area(usual, strange) == pytest.approx(np.mean(pairs))
    assert area(strange, usual) == pytest.approx(1 - np.mean(pairs))


def test_the_threshold_keeps_the_share_asked_for_and_no_more():
    scores = np.random.default_rng(0).permutation(200).astype(np.float32)
    for kept in (0.95, 0.99, 0.995, 1.0):
        limit = threshold(scores, kept)
        assert (scores < limit).mean() == pytest.approx(kept)
    assert threshold(scores, 0.9949) == threshold(scores, 0.995)  # never fewer than asked for
    assert np.float32(limit) > 199  # the image that was the last to be kept is kept


def test_scores_that_are_all_one_call_nothing_strange():
    scores = np.full(50, 3.0, np.float32)
    assert (scores < threshold(scores, 0.9)).all()
    assert area(scores, scores) == 0.5


def test_missed_is_the_false_positive_rate_at_a_recall():
    usual = np.arange(100.0)  # 95 of them pass below 94 and a little
    assert missed(usual, np.array([10.0, 94.0, 95.0, 200.0])) == 0.5
    assert missed(usual, np.array([10.0, 94.0, 95.0, 200.0]), kept=1.0) == 0.75
