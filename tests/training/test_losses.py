"""Each loss against its formula, for labels and soft targets."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tasks.schema import Imbalance
from tasks.training.losses import class_counts, class_weights, training_loss, validation_weights

COUNTS = np.array([900, 90, 10])
REST: dict[str, Any] = {
    "sampling": "none",
    "class_weights": "none",
    "beta": 0.99,
    "focal_gamma": 0.0,
    "logit_adjustment": 0.0,
}
REMEDIES: list[dict[str, Any]] = [
    {},
    {"class_weights": "inverse"},
    {"class_weights": "effective_number"},
    {"focal_gamma": 2.0},
    {"focal_gamma": 1.5, "class_weights": "effective_number"},
    {"logit_adjustment": 1.0},
]
NOTHING = torch.empty(0)


def imbalance(**values: Any) -> Imbalance:
    return Imbalance(**{**REST, **values})


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(3, (64,), generator=torch.Generator().manual_seed(1))


def test_without_a_remedy_it_is_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> None:
    loss = training_loss(imbalance(), 0.1, COUNTS)(logits, labels, NOTHING)
    assert torch.equal(loss, F.cross_entropy(logits, labels, label_smoothing=0.1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("remedy", REMEDIES, ids=str)
def test_labels_and_soft_targets_that_say_the_same_cost_the_same(
    logits: torch.Tensor, labels: torch.Tensor, remedy: dict[str, Any], smoothing: float
) -> None:
    loss = training_loss(imbalance(**remedy), smoothing, COUNTS)
    one_hot = F.one_hot(labels, 3).float()
    assert torch.allclose(loss(logits, labels, NOTHING), loss(logits, one_hot, NOTHING), rtol=1e-5)
    others = labels.roll(1)
    mixed = 0.3 * one_hot + 0.7 * F.one_hot(others, 3).float()
    apart = 0.3 * loss(logits, labels, NOTHING) + 0.7 * loss(logits, others, NOTHING)
    assert torch.allclose(loss(logits, mixed, NOTHING), apart, rtol=1e-5)


@pytest.mark.parametrize("remedy", REMEDIES, ids=str)
def test_logits_of_half_precision_cost_what_they_are(
    logits: torch.Tensor, labels: torch.Tensor, remedy: dict[str, Any]
) -> None:
    loss, half = training_loss(imbalance(**remedy), 0.1, COUNTS), logits.bfloat16()
    for targets in (labels, F.one_hot(labels, 3).float()):
        assert torch.equal(loss(half, targets, NOTHING), loss(half.float(), targets, NOTHING))


def test_class_weights_are_those_of_the_papers() -> None:
    inverse = class_weights(imbalance(class_weights="inverse"), COUNTS)
    assert inverse / inverse[0] == pytest.approx([1, 10, 90])
    effective = class_weights(imbalance(class_weights="effective_number", beta=0.99), COUNTS)
    expected = (1 - 0.99) / (1 - 0.99 ** COUNTS.astype(float))
    assert effective / effective[0] == pytest.approx(expected / expected[0])
    for weights in (inverse, effective):  # the learning rate keeps its meaning
        assert (weights * COUNTS).sum() / COUNTS.sum() == pytest.approx(1)
    equal = class_weights(imbalance(class_weights="effective_number", beta=0.0), COUNTS)
    assert equal == pytest.approx([1, 1, 1])


def test_a_weighted_image_counts_by_its_class(logits: torch.Tensor, labels: torch.Tensor) -> None:
    weights = torch.tensor(class_weights(imbalance(class_weights="inverse"), COUNTS)).float()
    each = F.cross_entropy(logits, labels, reduction="none")
    loss = training_loss(imbalance(class_weights="inverse"), 0.0, COUNTS)(logits, labels, NOTHING)
    assert torch.allclose(loss, (weights[labels] * each).mean())


def test_focal_is_its_formula_and_gamma_zero_is_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor
) -> None:
    p = F.softmax(logits, 1)[torch.arange(64), labels]
    loss = training_loss(imbalance(focal_gamma=2.0), 0.0, COUNTS)(logits, labels, NOTHING)
    assert torch.allclose(loss, -((1 - p) ** 2 * p.log()).mean(), rtol=1e-4)
    nearly = training_loss(imbalance(focal_gamma=1e-6), 0.0, COUNTS)(logits, labels, NOTHING)
    assert torch.allclose(nearly, F.cross_entropy(logits, labels), rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_has_a_finite_slope_where_all_is_known(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    loss = training_loss(imbalance(focal_gamma=gamma), 0.0, COUNTS)
    loss(logits, torch.tensor([0, 0]), NOTHING).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_adjusted_logits_are_fair_to_rare_classes() -> None:
    """Logits that say nothing but the class shares cost every class log C, whatever its size."""
    prior = torch.log(torch.tensor(COUNTS / COUNTS.sum())).float()
    loss = training_loss(imbalance(logit_adjustment=1.0), 0.0, COUNTS)
    flat = torch.zeros(1, 3)
    for label in range(3):
        cost = loss(flat, torch.tensor([label]), NOTHING)
        assert torch.allclose(cost, -prior[label])
        undone = loss(flat - prior, torch.tensor([label]), NOTHING)
        assert torch.allclose(undone, torch.tensor(np.log(3.0)).float())


def test_a_class_without_training_images_breaks_nothing(logits: torch.Tensor) -> None:
    counts = class_counts(np.array([0, 0, 1]), 3)
    assert counts.tolist() == [2, 1, 0]
    for remedy in REMEDIES:
        loss = training_loss(imbalance(**remedy), 0.1, counts)
        assert loss(logits, torch.zeros(64, dtype=torch.long), NOTHING).isfinite()


def test_validation_counts_the_classes_as_the_remedy_does() -> None:
    """Relative to the largest class."""
    wanted = {
        "inverse": ({"class_weights": "inverse"}, [1, 10, 90]),
        "adjusted": ({"logit_adjustment": 1.0}, [1, 10, 90]),
        "half adjusted": ({"logit_adjustment": 0.5}, [1, 10**0.5, 90**0.5]),
    }
    for remedy, relative in wanted.values():
        weights = validation_weights(imbalance(**remedy), COUNTS)
        assert weights is not None
        assert (weights / weights[0]).tolist() == pytest.approx(relative)
    assert validation_weights(imbalance(), COUNTS) is None
    assert validation_weights(imbalance(sampling="oversample"), COUNTS) is None
    assert validation_weights(imbalance(focal_gamma=2.0), COUNTS) is None
