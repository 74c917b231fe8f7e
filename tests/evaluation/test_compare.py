"""The gate's evidence: what changes when the challenger replaces the champion."""

import numpy as np
import pytest
from scipy.stats import binomtest

from tasks.evaluation.compare import compare
from tasks.params import load_params

GATE = load_params().gate.model_copy(update={"margin": 0.01})
CLASSES = ("cat", "dog", "fox")
LABELS = np.repeat([0, 1, 2], [450, 450, 100])


def wrong_on(rows: slice) -> np.ndarray:
    predicted = LABELS.copy()
    predicted[rows] = (predicted[rows] + 1) % 3
    return predicted


def test_a_challenger_within_the_margin_is_not_worse():
    result = compare(wrong_on(slice(0, 50)), wrong_on(slice(0, 51)), LABELS, CLASSES, GATE)
    assert result.difference == pytest.approx(-0.001)
    assert result.not_worse
    assert result.dropped_classes == ()
    assert (result.champion_accuracy, result.challenger_accuracy) == (0.95, 0.949)


def test_a_challenger_that_may_be_worse_than_the_margin_is_worse():
    """-0.8 points measured, but the interval reaches below the margin of one point."""
    result = compare(LABELS, wrong_on(slice(0, 8)), LABELS, CLASSES, GATE)
    assert result.difference > -GATE.margin > result.low
    assert not result.not_worse


def test_the_bounds_are_one_sided_and_the_test_is_mcnemars():
    champion, challenger = wrong_on(slice(0, 60)), wrong_on(slice(40, 80))
    result = compare(champion, challenger, LABELS, CLASSES, GATE)
    # 40 images gained, 20 lost of 1,000: a difference of 0.02 with a deviation of 0.0077
    assert result.low == pytest.approx(0.02 - 1.645 * 0.00772, abs=1.5e-3)
    assert result.high == pytest.approx(0.02 + 1.645 * 0.00772, abs=1.5e-3)
    assert result.p_value == pytest.approx(binomtest(20, 60).pvalue)
    assert compare(LABELS, LABELS, LABELS, CLASSES, GATE).p_value == 1


def test_a_better_challenger_that_drops_a_small_class_is_told():
    champion, challenger = wrong_on(slice(0, 100)), wrong_on(slice(900, 911))
    result = compare(champion, challenger, LABELS, CLASSES, GATE)
    assert result.not_worse
    assert result.low > 0
    assert result.dropped_classes == ("fox",)
    assert result.recall_change["fox"] == pytest.approx(-0.11)
    assert result.recall_change["cat"] == pytest.approx(100 / 450)


def test_a_drop_of_exactly_the_limit_is_allowed():
    result = compare(LABELS, wrong_on(slice(900, 910)), LABELS, CLASSES, GATE)
    assert result.recall_change["fox"] == pytest.approx(-0.1)
    assert result.dropped_classes == ()


def test_a_class_without_images_has_no_recall_change():
    labels = np.array([0, 0, 1, 1])
    result = compare(labels, labels, labels, CLASSES, GATE)
    assert result.recall_change == {"cat": 0.0, "dog": 0.0, "fox": None}
    assert result.dropped_classes == ()


def test_predictions_of_other_images_are_refused():
    with pytest.raises(ValueError, match="same images"):
        compare(LABELS[:10], LABELS, LABELS, CLASSES, GATE)
