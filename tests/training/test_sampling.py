"""Who is shown how often in an epoch."""

import numpy as np
import pytest
import torch

from tasks.training.sampling import EpochOrder, expected_counts

LABELS = np.repeat([0, 1, 2], [70, 21, 9])


def drawn(order: EpochOrder, seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    return order.draw().numpy()


def shown(order: EpochOrder, seed: int = 0) -> np.ndarray:
    """How often each image is in the epoch."""
    return np.bincount(drawn(order, seed), minlength=len(LABELS))


def test_without_a_remedy_every_image_comes_once_as_a_permutation() -> None:
    order = EpochOrder(LABELS, "none")
    assert len(order) == 100
    first = drawn(order)
    torch.manual_seed(0)
    assert (first == torch.randperm(100).numpy()).all()
    alike = EpochOrder(LABELS, "none", np.full(100, 2.5))
    assert (drawn(alike) == drawn(order)).all()


@pytest.mark.parametrize("seed", range(5))
def test_oversampling_shows_every_class_as_often_and_its_images_evenly(seed: int) -> None:
    order = EpochOrder(LABELS, "oversample")
    times = shown(order, seed)
    assert len(order) == times.sum() == 210
    assert np.bincount(LABELS, times).tolist() == [70, 70, 70]
    assert (times[LABELS == 0] == 1).all()
    assert set(times[LABELS == 1]) == {3, 4}  # 70 / 21
    assert set(times[LABELS == 2]) == {7, 8}  # 70 / 9


@pytest.mark.parametrize("seed", range(5))
def test_undersampling_shows_as_many_of_every_class_none_twice(seed: int) -> None:
    order = EpochOrder(LABELS, "undersample")
    times = shown(order, seed)
    assert len(order) == times.sum() == 27
    assert np.bincount(LABELS, times).tolist() == [9, 9, 9]
    assert times.max() == 1


def test_over_many_epochs_undersampling_shows_all_images() -> None:
    order = EpochOrder(LABELS, "undersample")
    times = sum(shown(order, seed) for seed in range(200))
    assert times[LABELS == 0].min() > 5
    assert (times[LABELS == 2] == 200).all()


def test_the_classes_are_mixed() -> None:
    classes = LABELS[drawn(EpochOrder(LABELS, "oversample"))]
    assert all(set(part) == {0, 1, 2} for part in np.array_split(classes, 10))


@pytest.mark.parametrize("sampling", ["none", "oversample"])
def test_weights_decide_inside_a_class_and_of_all_without_classes(sampling: str) -> None:
    weights = np.ones(100)
    weights[0], weights[75], weights[99] = 4.0, 0.25, 3.0
    order = EpochOrder(LABELS, sampling, weights)
    epochs = 400
    times = sum(shown(order, seed) for seed in range(epochs)) / epochs
    assert times == pytest.approx(expected_counts(LABELS, sampling, weights), abs=0.12)
    assert times[0] / times[1] == pytest.approx(4, rel=0.05)
    if sampling == "oversample":
        assert np.bincount(LABELS, shown(order)).tolist() == [70, 70, 70]
    else:
        assert len(order) == 100


def test_a_seed_repeats_and_another_does_not() -> None:
    order = EpochOrder(LABELS, "oversample")
    assert (drawn(order, 1) == drawn(order, 1)).all()
    assert (drawn(order, 1) != drawn(order, 2)).any()


def test_a_class_number_without_images_is_left_out() -> None:
    labels = np.array([0, 0, 0, 2])
    assert len(EpochOrder(labels, "oversample")) == 6
    assert len(EpochOrder(labels, "undersample")) == 2
