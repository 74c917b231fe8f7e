"""Label errors planted in real digits, judged by models that never saw the image."""

import tracemalloc

import numpy as np
import pytest

from tasks.errors import DataError
from tasks.metrics.label_errors import find_label_errors

RATE = 0.08


@pytest.fixture(scope="module")
def noisy(digit_images: np.ndarray, digit_labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Out-of-fold probabilities, labels with 8 % replaced at random, and the right ones."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    generator = np.random.default_rng(0)
    labels = digit_labels.copy()
    wrong = generator.permutation(len(labels))[: round(RATE * len(labels))]
    labels[wrong] = (labels[wrong] + generator.integers(1, 10, len(wrong))) % 10
    pixels = digit_images[..., 0].reshape(len(labels), -1) / 255
    model = LogisticRegression(C=1.0, max_iter=200)
    found = cross_val_predict(model, pixels, labels, cv=3, method="predict_proba")
    return found.astype(np.float32), labels, digit_labels


def test_planted_errors_are_found_and_little_else(noisy: tuple[np.ndarray, ...]) -> None:
    probabilities, labels, right = noisy
    found, wrong = find_label_errors(probabilities, labels), labels != right
    hits = found.suspect & wrong
    assert hits.sum() / wrong.sum() > 0.9, "recall"
    assert hits.sum() / found.suspect.sum() > 0.7, "precision"
    worst = np.argsort(-found.suspicion)[:100]
    assert wrong[worst].mean() > 0.95, "the worst are not at the top"
    assert (found.likelier[hits] == right[hits]).mean() > 0.9
    assert (found.likelier != labels).all()


def test_a_large_class_does_not_make_a_small_one_suspect() -> None:
    """Everybody is 0.7 sure of the large class; who passes its threshold counts, not the mean."""
    labels = np.array([0] * 90 + [1] * 10)
    probabilities = np.tile(np.array([[0.7, 0.3]]), (100, 1))
    probabilities[:80] = [0.9, 0.1]
    probabilities[90] = [0.95, 0.05]
    found = find_label_errors(probabilities, labels)
    assert np.flatnonzero(found.suspect).tolist() == [90]
    assert (probabilities.argmax(1) != labels).sum() == 10


def test_what_an_excluded_image_says_changes_nothing(noisy: tuple[np.ndarray, ...]) -> None:
    probabilities, labels, _ = noisy
    excluded = np.zeros(len(labels), np.bool_)
    excluded[::3] = True
    damaged = probabilities.copy()
    damaged[::3] = np.nan
    found = find_label_errors(damaged, labels, excluded)
    alone = find_label_errors(probabilities[~excluded], labels[~excluded])
    assert not found.suspect[excluded].any()
    assert np.isnan(found.suspicion[excluded]).all()
    np.testing.assert_array_equal(found.suspect[~excluded], alone.suspect)
    np.testing.assert_array_equal(found.suspicion[~excluded], alone.suspicion)


def test_constant_predictions_make_nobody_suspect() -> None:
    labels = np.arange(50) % 5
    for row in ([0.2] * 5, [0.6, 0.1, 0.1, 0.1, 0.1]):
        probabilities = np.tile(np.array(row, np.float32), (50, 1))
        assert not find_label_errors(probabilities, labels).suspect.any()


def test_certain_models_are_believed() -> None:
    """Probabilities of exactly 0 and 1: no threshold is passed by more than nothing."""
    right = np.arange(30) % 3
    labels = right.copy()
    labels[4] = 2
    found = find_label_errors(np.eye(3)[right], labels)
    assert np.flatnonzero(found.suspect).tolist() == [4]
    assert found.likelier[4] == right[4]


def test_an_absent_class_is_nobodys_likelier_label() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 0])
    probabilities = np.array([[0.6, 0.2, 0.2]] * 3 + [[0.2, 0.6, 0.2]] * 3 + [[0.05, 0.1, 0.85]])
    found = find_label_errors(probabilities, labels)
    assert not found.suspect.any()
    assert 2 not in found.likelier


def test_a_class_of_one_image_can_be_wrong() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.8, 0.2], [0.9, 0.1], [0.7, 0.3], [0.99, 0.01]])
    assert find_label_errors(probabilities, labels).suspect.tolist() == [False] * 3 + [True]


def test_one_class_leaves_nothing_to_suspect() -> None:
    found = find_label_errors(np.ones((4, 1)), np.zeros(4, np.int64))
    assert not found.suspect.any()
    assert found.likelier.tolist() == [0] * 4


def test_no_images_give_no_suspects() -> None:
    assert len(find_label_errors(np.zeros((0, 3)), np.zeros(0, np.int64)).suspect) == 0


def test_a_thousand_classes_take_little_memory() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 1000, 20_000)
    probabilities = generator.random((20_000, 1000), np.float32)
    wrong = generator.permutation(20_000)[:200]
    probabilities[np.arange(20_000), labels] += 500
    probabilities[wrong, labels[wrong]] += 1500  # sure of what the label will not say
    probabilities /= probabilities.sum(1, keepdims=True)
    labels[wrong] = (labels[wrong] + 1) % 1000
    tracemalloc.start()
    found = find_label_errors(probabilities, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(np.flatnonzero(found.suspect)) == sorted(wrong)
    assert peak < 2 * probabilities.nbytes, "temporary arrays grow with the images"


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 3.0])
def test_what_is_no_probability_is_named_with_its_row(value: float) -> None:
    probabilities = np.full((5, 2), 0.5)
    probabilities[3, 1] = value
    with pytest.raises(DataError, match=r"1 of 5 rows .* row 3; .*diverged"):
        find_label_errors(probabilities, np.zeros(5, np.int64))


def test_a_label_that_is_no_class_is_named() -> None:
    with pytest.raises(DataError, match="label 7 of row 1 is none of 2 classes"):
        find_label_errors(np.full((2, 2), 0.5), np.array([0, 7]))


def test_rows_and_labels_must_belong_together() -> None:
    with pytest.raises(DataError, match="one row an image"):
        find_label_errors(np.full((3, 2), 0.5), np.array([0, 1]))
