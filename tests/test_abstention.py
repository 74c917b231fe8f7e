"""Thresholds and sets, held against counting, and against what they promise on real answers."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tasks.metrics.abstention import (
    prediction_sets,
    risk_coverage,
    set_threshold,
    threshold_for_coverage,
    threshold_for_risk,
)


@pytest.fixture(scope="module")
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of 1,297 real digits, of a model that saw 500 others."""
    images, labels = load_digits(return_X_y=True)
    images = images + np.random.default_rng(0).normal(0, 5, images.shape)  # hard enough to err
    model = LogisticRegression(max_iter=200, C=0.001).fit(images[:500], labels[:500])
    return model.predict_proba(images[500:]), labels[500:]


def test_the_curve_is_what_counting_gives(answers):
    probabilities, labels = answers
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    curve = risk_coverage(confidence, correct)
    for threshold in (0.3, 0.5, 0.9):
        answered = confidence >= threshold
        coverage, risk = curve.at(threshold)
        assert coverage == pytest.approx(answered.mean())
        assert risk == pytest.approx((~correct[answered]).mean())
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx((~correct).mean())
    assert curve.area < curve.risk[-1]  # confidence tells something
    shuffled = np.random.default_rng(0).permutation(confidence)
    assert risk_coverage(shuffled, correct).area == pytest.approx(curve.risk[-1], abs=0.03)
    assert curve.at(1.1)[0] == 0


def test_equal_confidences_are_answered_together():
    correct = np.array([True, False, True, True])
    curve = risk_coverage(np.array([0.5, 0.5, 0.9, 0.5]), correct)
    np.testing.assert_allclose(curve.coverage, [0.25, 1])
    np.testing.assert_allclose(curve.risk, [0, 0.25])
    again = risk_coverage(np.array([0.5, 0.5, 0.5, 0.9]), correct[[3, 1, 0, 2]])
    np.testing.assert_allclose(again.risk, curve.risk)


@pytest.mark.parametrize("coverage", [0.1, 0.5, 0.9, 1.0])
def test_as_many_are_answered_as_were_declared(answers, coverage):
    confidence = answers[0].max(1)
    threshold = threshold_for_coverage(confidence, coverage)
    share = (confidence >= threshold).mean()
    assert coverage <= share <= coverage + 1 / len(confidence)


def test_the_risk_is_kept_on_images_that_chose_nothing(answers):
    """200 times, half of the answers choose the threshold and the others are answered."""
    probabilities, labels = answers
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    random, broken, coverages = np.random.default_rng(0), 0, []
    for _ in range(200):
        order = random.permutation(len(labels))
        choose, rest = order[:650], order[650:]
        curve = risk_coverage(confidence[choose], correct[choose])
        threshold = threshold_for_risk(curve, 650, 0.1)
        assert threshold is not None
        coverage, risk = risk_coverage(confidence[rest], correct[rest]).at(threshold)
        broken += risk > 0.1
        coverages.append(coverage)
    assert broken <= 10  # 5 % of 200
    assert np.mean(coverages) > 0.3  # not by answering nothing
    assert 1 - correct.mean() > 0.1  # and without abstaining it would not be kept


def test_a_risk_that_cannot_be_promised_has_no_threshold(answers):
    probabilities, labels = answers
    curve = risk_coverage(probabilities.max(1), probabilities.argmax(1) == labels)
    assert threshold_for_risk(curve, len(labels), 0.0001) is None
    few = risk_coverage(np.linspace(0.5, 0.9, 5), np.ones(5, bool))
    assert threshold_for_risk(few, 5, 0.05) is None
    assert threshold_for_risk(few, 5, 0.9) == pytest.approx(0.5)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_true_class_as_often_as_they_say(answers, coverage):
    """On real answers, 300 times divided into those that choose and those that are answered."""
    probabilities, labels = answers
    random, held, sizes = np.random.default_rng(0), [], []
    for _ in range(300):
        order = random.permutation(len(labels))
        choose, rest = order[:400], order[400:]
        threshold = set_threshold(probabilities[choose], labels[choose], coverage)
        sets = prediction_sets(probabilities[rest], threshold)
        held.append(sets[np.arange(len(rest)), labels[rest]].mean())
        sizes.append(sets.sum(1).mean())
    assert coverage - 0.005 <= np.mean(held) <= coverage + 0.02
    assert np.mean(sizes) < 5  # of ten classes
    assert min(sizes) >= 1


def test_too_few_images_promise_nothing_less_than_every_class():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    assert set_threshold(probabilities, np.array([0, 1, 1]), 0.95) == 0
    assert prediction_sets(probabilities, 0).all()


def test_the_most_probable_class_is_always_in_the_set():
    sets = prediction_sets(np.array([[0.4, 0.35, 0.25]]), 0.9)
    np.testing.assert_array_equal(sets, [[True, False, False]])
