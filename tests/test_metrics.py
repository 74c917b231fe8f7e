"""Every figure against scikit-learn, computed another way."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from tasks.metrics.bootstrap import paired_difference, score_intervals, share_interval
from tasks.metrics.classification import confusion_matrix, recall_by_class, scores_of
from tasks.metrics.ranking import ranked


def predictions(n: int, n_classes: int, accuracy: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(n_classes, n, p=rng.dirichlet(np.full(n_classes, 3.0)))
    wrong = rng.integers(0, n_classes, n)
    return labels, np.where(rng.random(n) < accuracy, labels, wrong)


@pytest.mark.parametrize(("n_classes", "accuracy"), [(2, 0.7), (6, 0.9), (40, 0.3)])
def test_scores_are_scikit_learns(n_classes, accuracy):
    labels, predicted = predictions(2000, n_classes, accuracy)
    assert len(np.unique(labels)) == n_classes
    confusion = confusion_matrix(labels, predicted, n_classes)
    ours = scores_of(confusion)
    np.testing.assert_array_equal(confusion, sk.confusion_matrix(labels, predicted))
    np.testing.assert_allclose(ours.accuracy, sk.accuracy_score(labels, predicted))
    np.testing.assert_allclose(
        ours.balanced_accuracy, sk.balanced_accuracy_score(labels, predicted)
    )
    per_class = sk.precision_recall_fscore_support(labels, predicted, zero_division=np.nan)
    for name, expected in zip(("precision", "recall", "f1"), per_class, strict=False):
        np.testing.assert_allclose(getattr(ours, name), expected)
    macro = sk.precision_recall_fscore_support(labels, predicted, average="macro")
    for name, expected in zip(("precision", "recall", "f1"), macro, strict=False):
        np.testing.assert_allclose(getattr(ours, f"macro_{name}"), expected)
    weighted = sk.precision_recall_fscore_support(labels, predicted, average="weighted")
    np.testing.assert_allclose(ours.weighted_precision, weighted[0])
    np.testing.assert_allclose(ours.weighted_f1, weighted[2])
    np.testing.assert_allclose(ours.kappa, sk.cohen_kappa_score(labels, predicted))


def test_what_is_not_defined_is_nan_and_left_out_of_means():
    labels = np.array([0, 0, 1, 1])  # no image of class 2
    ours = scores_of(confusion_matrix(labels, np.zeros(4, int), 3))  # class 1 never predicted
    np.testing.assert_array_equal(ours.recall, [1, 0, np.nan])
    np.testing.assert_array_equal(ours.precision, [0.5, np.nan, np.nan])
    np.testing.assert_allclose(ours.f1, [2 / 3, 0, np.nan])
    assert ours.balanced_accuracy == 0.5
    assert ours.macro_f1 == pytest.approx(1 / 3)
    assert ours.macro_precision == 0.5
    assert ours.weighted_precision == 0.5
    assert ours.weighted_f1 == pytest.approx(1 / 3)
    assert ours.kappa == 0
    assert np.isnan(scores_of(np.diag([3, 0])).kappa)  # one class: agreement is certain


def test_a_prediction_into_an_absent_class_counts_against_the_others():
    ours = scores_of(confusion_matrix(np.array([0, 0, 1]), np.array([0, 2, 1]), 3))
    assert ours.accuracy == pytest.approx(2 / 3)
    np.testing.assert_array_equal(ours.recall, [0.5, 1, np.nan])
    assert ours.precision[2] == 0


def test_recall_by_class_keeps_absent_classes_in_place():
    recall = recall_by_class(np.array([2, 2, 0]), np.array([2, 2, 2]), 4)
    np.testing.assert_allclose(recall, [np.nan, np.nan, 2 / 3, np.nan])


def test_intervals_match_resampling_image_by_image():
    labels, predicted = predictions(600, 4, 0.8)
    ours = score_intervals(confusion_matrix(labels, predicted, 4), 4000, 0.9, seed=1)
    rng = np.random.default_rng(2)
    groups = [np.flatnonzero(labels == c) for c in range(4)]
    drawn: dict[str, list] = {name: [] for name in ("accuracy", "macro_f1", "precision", "kappa")}
    for _ in range(600):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        y, p = labels[rows], predicted[rows]
        drawn["accuracy"].append(sk.accuracy_score(y, p))
        drawn["macro_f1"].append(sk.f1_score(y, p, average="macro"))
        drawn["precision"].append(sk.precision_score(y, p, average=None))
        drawn["kappa"].append(sk.cohen_kappa_score(y, p))
    for name, values in drawn.items():
        low, high = np.quantile(values, (0.05, 0.95), axis=0)
        np.testing.assert_allclose(getattr(ours.low, name), low, atol=0.012)
        np.testing.assert_allclose(getattr(ours.high, name), high, atol=0.012)


def test_intervals_depend_on_the_seed_alone():
    confusion = confusion_matrix(*predictions(300, 5, 0.9), 5)
    first, again, other = (score_intervals(confusion, 500, 0.95, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.low.f1, again.low.f1)
    assert (first.low.f1 != other.low.f1).any()


def test_no_error_seen_is_not_no_error_possible():
    ours = score_intervals(np.diag([30, 30, 0]), 500, 0.95, seed=0)
    lowest = binomtest(60, 60).proportion_ci(0.95, "wilson").low
    assert (float(ours.low.accuracy), float(ours.high.accuracy)) == (pytest.approx(lowest), 1)
    one = binomtest(30, 30).proportion_ci(0.95, "wilson").low
    np.testing.assert_allclose(ours.low.recall, [one, one, np.nan])
    assert ours.low.macro_f1 < 0.95
    assert float(ours.low.kappa) == pytest.approx((lowest - 0.5) / 0.5)
    nothing = score_intervals(np.array([[0, 20], [0, 20]]), 500, 0.95, seed=0)
    assert (nothing.value.recall[0], nothing.low.recall[0]) == (0, 0)
    assert nothing.high.recall[0] == pytest.approx(
        1 - binomtest(20, 20).proportion_ci(0.95, "wilson").low
    )
    assert np.isnan(nothing.low.precision[0])


def test_the_interval_of_a_share_is_wilsons():
    confusion = np.array([[45, 5], [3, 17]])
    ours = score_intervals(confusion, 500, 0.9, seed=0)
    for index, (right, images) in enumerate(((45, 50), (17, 20))):
        expected = binomtest(right, images).proportion_ci(0.9, "wilson")
        assert ours.low.recall[index] == pytest.approx(expected.low)
        assert ours.high.recall[index] == pytest.approx(expected.high)


def test_a_rare_class_without_errors_is_not_taken_for_known():
    """1,000 images of one class, 700 right, and 10 of another, all right."""
    ours = score_intervals(np.array([[700, 300], [0, 10]]), 500, 0.95, seed=0)
    assert ours.value.balanced_accuracy == pytest.approx(0.85)
    assert ours.low.balanced_accuracy < (0.7 + 0.8) / 2  # 10 of 10 may be 80 %
    assert ours.low.accuracy > 0.67  # of which those ten are next to nothing


def test_one_image_a_class_is_ten_images():
    right = np.arange(10) < 7
    confusion = np.diag(right) + np.roll(np.diag(~right), 1, axis=1)
    ours = score_intervals(confusion.astype(int), 500, 0.95, seed=0)
    expected = binomtest(7, 10).proportion_ci(0.95, "wilson")
    for score in ("accuracy", "balanced_accuracy"):
        assert float(getattr(ours.low, score)) == pytest.approx(expected.low)
        assert float(getattr(ours.high, score)) == pytest.approx(expected.high)


@pytest.mark.parametrize("accuracy", [0.8, 0.97, 1.0])
def test_intervals_cover_the_truth_about_as_often_as_they_say(accuracy):
    """200 test sets of 300 images from a model of known accuracy."""
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        rights = rng.binomial(100, accuracy, 3)
        confusion = np.diag(rights) + np.roll(np.diag(100 - rights), 1, axis=1)
        ours = score_intervals(confusion, 300, 0.95, seed=trial)
        covered += bool(ours.low.accuracy <= accuracy <= ours.high.accuracy)
    assert covered >= 180


def test_intervals_cover_the_truth_with_a_rare_class_too():
    """Percentiles of the bootstrap miss the balanced accuracy in 18 % of these test sets."""
    rng, sizes = np.random.default_rng(0), np.array([150, 40, 8])
    names = ("accuracy", "macro_f1", "balanced_accuracy", "kappa")
    truth = scores_of(np.diag(sizes * 95) + np.roll(np.diag(sizes * 5), 1, axis=1))
    covered = dict.fromkeys(names, 0)
    for trial in range(200):
        rights = rng.binomial(sizes, 0.95)
        confusion = np.diag(rights) + np.roll(np.diag(sizes - rights), 1, axis=1)
        ours = score_intervals(confusion, 200, 0.95, seed=trial)
        for name in names:
            low, high = getattr(ours.low, name), getattr(ours.high, name)
            covered[name] += bool(low <= getattr(truth, name) <= high)
    assert min(covered.values()) >= 182, covered


def test_paired_difference_is_exact_and_narrower_than_unpaired():
    rng = np.random.default_rng(0)
    hard = rng.random(1000) < 0.2
    old, new = ~hard, ~hard.copy()
    new[np.flatnonzero(hard)[:30]] = True
    difference, low, high = paired_difference(old, new, 4000, 0.95, seed=0)
    assert difference == pytest.approx(0.03)
    spread = 1.96 * np.sqrt(0.03 * 0.97 / 1000)
    assert (low, high) == (
        pytest.approx(0.03 - spread, abs=2e-3),
        pytest.approx(0.03 + spread, abs=2e-3),
    )
    assert paired_difference(new, old, 4000, 0.95, seed=0)[0] == pytest.approx(-0.03)


def test_equal_models_differ_by_nothing():
    right = np.array([True, False, True])
    assert paired_difference(right, right, 100, 0.95, 0) == (0.0, 0.0, 0.0)


def test_few_disagreements_leave_much_open():
    """Three of 100 pairs, all one way: the two could still be as good as each other."""
    right = np.ones(100, bool)
    worse = right.copy()
    worse[:3] = False
    difference, low, high = paired_difference(right, worse, 4000, 0.95, seed=0)
    assert difference == pytest.approx(-0.03)
    assert low <= -0.07
    assert high == pytest.approx(0, abs=0.0101)


def test_a_share_has_wilsons_interval():
    for right in (0, 3, 40):
        expected = binomtest(right, 40).proportion_ci(0.95, "wilson")
        found = share_interval(np.arange(40) < right, 0.95)
        assert found == pytest.approx((right / 40, expected.low, expected.high))


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False])])
def test_paired_difference_needs_pairs(a, b):
    with pytest.raises(ValueError, match="paired arrays"):
        paired_difference(np.array(a, bool), np.array(b, bool), 100, 0.95, 0)


def some_probabilities(n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n)
    scores = rng.normal(size=(n, n_classes))
    scores[np.arange(n), labels] += 1.5
    return np.exp(scores) / np.exp(scores).sum(1, keepdims=True), labels


def test_scores_of_all_probabilities_are_scikit_learns():
    probabilities, labels = some_probabilities(800, 7)
    found = ranked(probabilities, labels)
    for k in (2, 3, 5):
        assert found.top[k] == pytest.approx(sk.top_k_accuracy_score(labels, probabilities, k=k))
    one_vs_rest = sk.roc_auc_score(labels, probabilities, multi_class="ovr", average=None)
    np.testing.assert_allclose(found.roc_auc, one_vs_rest)
    precision = sk.average_precision_score(np.eye(7)[labels], probabilities, average=None)
    np.testing.assert_allclose(found.average_precision, precision)
    assert found.macro_roc_auc == pytest.approx(one_vs_rest.mean())
    brier = sum(sk.brier_score_loss(labels == c, probabilities[:, c]) for c in range(7))
    assert found.brier == pytest.approx(brier)


def test_a_constant_model_and_an_absent_class():
    labels = np.array([0, 0, 1, 2] * 10)
    found = ranked(np.full((40, 4), 0.25), labels)
    assert found.top == {2: pytest.approx(0.5), 3: pytest.approx(0.75)}
    np.testing.assert_allclose(found.roc_auc, [0.5, 0.5, 0.5, np.nan])
    np.testing.assert_allclose(found.average_precision, [0.5, 0.25, 0.25, np.nan])
    alone = ranked(np.full((5, 2), 0.5), np.zeros(5, int))
    assert np.isnan(alone.macro_roc_auc)
    assert np.isnan(alone.macro_average_precision)
    assert alone.top == {}
