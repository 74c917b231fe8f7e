"""The losses of distillation are those of their papers, for labels and for mixtures."""

import pytest
import torch
import torch.nn.functional as F

from tasks.compression.soft_targets import (
    decoupled,
    distillation_loss,
    embedding_distance,
    soft_targets,
)
from tasks.compression.teacher import Teacher
from tasks.schema import Distil, Params
from tasks.training.losses import training_loss
from tasks.training.models import Classifier, ModelSpec

T = 3.0


def answers(count: int = 6, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    labels = torch.arange(count) % classes
    return 3 * torch.randn(count, classes), 3 * torch.randn(count, classes), labels


def test_soft_targets_are_the_divergence_of_softened_probabilities() -> None:
    logits, wanted, _ = answers()
    p, q = F.softmax(wanted / T, 1), F.softmax(logits / T, 1)
    expected = T**2 * (p * (p / q).log()).sum(1).mean()
    assert torch.allclose(soft_targets(logits, wanted, T), expected)
    assert soft_targets(wanted, wanted, T).abs() < 1e-6


def test_decoupled_weighed_by_the_teachers_doubt_is_soft_targets() -> None:
    """Zhao et al. 2022, equation 7: KD = TCKD + (1 − p of the label's class) · NCKD."""
    logits, wanted, labels = answers()
    for row in range(len(labels)):
        one = slice(row, row + 1)
        doubt = 1 - F.softmax(wanted[one] / T, 1)[0, labels[row]]
        found = decoupled(logits[one], wanted[one], labels[one], T, float(doubt))
        assert torch.allclose(found, soft_targets(logits[one], wanted[one], T), rtol=1e-4)


def test_decoupled_passes_on_what_a_confident_teacher_knows_of_the_other_classes() -> None:
    wanted = torch.tensor([[80.0, 6.0, 3.0, 0.0]])  # its doubt is below what float32 resolves
    logits = torch.tensor([[80.0, 0.0, 3.0, 6.0]], requires_grad=True)
    label = torch.tensor([0])
    assert soft_targets(logits, wanted, T) < 1e-6
    found = decoupled(logits, wanted, label, T, 1.0)
    assert found > 1
    found.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert decoupled(wanted, wanted, label, T, 1.0).abs() < 1e-6


def test_of_two_classes_there_are_no_other_ones() -> None:
    logits, wanted, labels = answers(classes=2)
    without = decoupled(logits, wanted, labels, T, 0.0)
    assert torch.equal(decoupled(logits, wanted, labels, T, 8.0), without)
    assert without > 0


def test_the_embeddings_distance_is_a_share_of_the_teachers_length() -> None:
    wanted = torch.randn(4, 7)
    assert embedding_distance(wanted, wanted) == 0
    assert torch.allclose(embedding_distance(torch.zeros(4, 7), wanted), torch.tensor(1.0))
    assert torch.allclose(embedding_distance(500 * wanted, 1000 * wanted), torch.tensor(0.25))


@pytest.mark.parametrize("method", ["soft_targets", "decoupled", "features"])
def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses(
    network: tuple[Classifier, ModelSpec], conf: Params, method: str
) -> None:
    update = {"method": method, "alpha": 0.7, "beta": 2.0}
    settings: Distil = conf.compress.distil.model_copy(update=update)
    hard = training_loss(conf.train.imbalance, 0.05, torch.ones(10).long().numpy())
    loss = distillation_loss(Teacher(network[0]), settings, hard)
    inputs, outputs = torch.randn(6, 3, 8, 8), torch.randn(6, 10 + 64)
    outputs = outputs if method == "features" else outputs[:, :10]
    first, second = torch.tensor([0, 1, 2, 3, 0, 9]), torch.tensor([1, 1, 0, 2, 3, 3])
    soft = 0.25 * F.one_hot(first, 10).float() + 0.75 * F.one_hot(second, 10).float()
    apart = 0.25 * loss(outputs, first, inputs) + 0.75 * loss(outputs, second, inputs)
    assert torch.allclose(loss(outputs, soft, inputs), apart)
