"""Declared groups: figures recomputed, a planted gap is told, one that is not there is not."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from tasks.evaluation.factors import factor_of
from tasks.evaluation.groups import compare, compare_all

CLASSES = ("cat", "dog", "fox")
SETTINGS = (0.95, 500, 0)


def answers(random, wrong: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels, or for the wrong ones one of the two others."""
    return np.where(wrong, (labels + random.integers(1, 3, len(labels))) % 3, labels)


def test_figures_are_those_of_scikit_learn_in_each_group():
    random = np.random.default_rng(0)
    group, labels = random.choice(["A", "B", "C"], 900), random.integers(0, 3, 900)
    predicted = answers(random, random.random(900) < np.where(group == "B", 0.4, 0.1), labels)
    found = compare(factor_of("site", pd.Series(group), 30), labels, predicted, CLASSES, *SETTINGS)
    accuracy = {}
    for one in found.groups:
        inside = group == one.name[-1]
        assert one.images == inside.sum()
        accuracy[one.name] = sk.accuracy_score(labels[inside], predicted[inside])
        assert one.accuracy[0] == pytest.approx(accuracy[one.name])
        assert one.accuracy[1] < one.accuracy[0] < one.accuracy[2]
        recall = sk.recall_score(labels[inside], predicted[inside], average="macro")
        assert one.macro_recall == pytest.approx(recall)
    assert found.groups[0].name == "site = B"
    assert found.gap[0] == pytest.approx(max(accuracy.values()) - min(accuracy.values()))
    assert 0 < found.gap[1] < found.gap[0] < found.gap[2]
    assert found.p < 0.01
    assert "more than chance gives" in found.sentence()
    spread = found.spread
    at = CLASSES.index(spread.class_name)
    for name, rate in ((spread.most, spread.highest), (spread.least, spread.lowest)):
        others = (group == name[-1]) & (labels != at)
        assert rate == pytest.approx((predicted[others] == at).mean())


def test_a_gap_is_seldom_found_where_there_is_none():
    alarms = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        labels, wrong = random.integers(0, 3, 300), random.random(300) < 0.2
        factor = factor_of("site", pd.Series(random.choice(["A", "B", "C"], 300)), 30)
        predicted = answers(random, wrong, labels)
        alarms += compare(factor, labels, predicted, CLASSES, 0.95, 200, seed).p <= 0.05
    assert alarms <= 11  # 5 are expected; more than 11 in one of a hundred such tests


def test_the_mix_of_classes_is_told_apart_from_the_group():
    """Foxes are hard, and site B has many: at each class the sites are alike."""
    random = np.random.default_rng(3)
    site = np.repeat(["A", "B"], 4000)
    labels = np.where(random.random(8000) < np.where(site == "A", 0.1, 0.8), 2, 0)
    predicted = answers(random, random.random(8000) < np.where(labels == 2, 0.5, 0.05), labels)
    found = compare(factor_of("site", pd.Series(site), 30), labels, predicted, CLASSES, *SETTINGS)
    explained = found.groups[-1].by_its_classes - found.groups[0].by_its_classes
    assert found.gap[0] > 0.2
    assert explained == pytest.approx(found.gap[0], abs=0.05)
    recalls = [group.macro_recall for group in found.groups]
    assert abs(recalls[0] - recalls[1]) < 0.05


def test_one_large_group_is_not_compared():
    site = pd.Series(["A"] * 90 + ["B"] * 10)
    labels = np.zeros(100, int)
    found = compare(factor_of("site", site, 30), labels, labels, CLASSES, *SETTINGS)
    assert (found.gap, found.p, found.spread, found.left_out) == (None, None, None, 10)
    assert "fewer than two groups" in found.sentence()
    nobody = compare(factor_of("site", site, 95), labels, labels, CLASSES, *SETTINGS)
    assert nobody.groups == []


def test_groups_without_a_mistake_or_a_common_class_have_figures_all_the_same():
    site, labels = pd.Series(["A"] * 50 + ["B"] * 50), np.repeat([0, 1], 50)
    found = compare(factor_of("site", site, 30), labels, labels, CLASSES, *SETTINGS)
    assert found.gap[0] == 0
    assert found.gap[1] < 0 < found.gap[2]
    assert found.p == 1
    assert [group.macro_recall for group in found.groups] == [None, None]
    assert found.groups[0].accuracy[1] < 1


def test_several_declared_attributes_are_corrected_together():
    random = np.random.default_rng(5)
    labels = random.integers(0, 3, 400)
    predicted = answers(random, random.random(400) < 0.2, labels)
    factors = [
        factor_of(name, pd.Series(random.choice(["A", "B"], 400)), 30) for name in ("x", "y", "z")
    ]
    alone = [compare(factor, labels, predicted, CLASSES, *SETTINGS).p for factor in factors]
    together = [one.p for one in compare_all(factors, labels, predicted, CLASSES, *SETTINGS)]
    assert min(together) == pytest.approx(min(1, 3 * min(alone)))
    assert all(one >= other for one, other in zip(together, alone, strict=True))
