"""How far a student's answer is from its teacher's: the losses of distillation.

All are in nats per image (of a batch, the mean), with T² for the gradients to be of one size
whatever the temperature T. Logits and answers are float N×C.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.compression.teacher import Teacher
from tasks.schema import Distil
from tasks.training.losses import Loss

_OF_A_MIXTURE = 2  # classes: two images are mixed (see tasks.training.mixing)


def distillation_loss(teacher: Teacher, distil: Distil, hard: Loss) -> Loss:
    """What the teacher says, times alpha, and `hard`, the loss of the labels, times 1 − alpha.

    Of `features`, the network gives its embedding after the logits (see feature_matching), and
    its distance from the teacher's is added, times beta.
    """
    temperature, alpha, beta = distil.temperature, distil.alpha, distil.beta
    if not heard(distil):
        return hard

    def loss(outputs: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        answer = teacher(inputs)
        logits = outputs[:, : answer.logits.shape[1]]
        if distil.method == "decoupled":
            soft = decoupled(logits, answer.logits, targets, temperature, beta)
        else:
            soft = soft_targets(logits, answer.logits, temperature)
        total = alpha * soft + (1 - alpha) * hard(logits, targets, inputs)
        if distil.method == "features":
            embedding = outputs[:, answer.logits.shape[1] :]
            total = total + beta * embedding_distance(embedding, answer.embedding)
        return total

    return loss


def heard(distil: Distil) -> bool:
    """Whether the teacher has a say: a forward pass of it is a third of a student's step."""
    return distil.alpha > 0 or distil.method == "features"


def soft_targets(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher ‖ student) of the softened probabilities.

    Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network".
    """
    divergence = _divergence(wanted / temperature, logits / temperature)
    return temperature**2 * divergence.mean()


def decoupled(
    logits: Tensor, wanted: Tensor, targets: Tensor, temperature: float, beta: float
) -> Tensor:
    """T²·(KL of the label's class against the rest + beta·KL among the other classes).

    Zhao et al. 2022, "Decoupled Knowledge Distillation" (with alpha 1): soft targets weigh the
    second by the teacher's own doubt, so a confident teacher passes on little of it. `targets`
    are labels, or soft targets of at most two classes an image, whose losses are averaged.
    """
    wanted, logits = wanted / temperature, logits / temperature
    if not targets.is_floating_point():
        return temperature**2 * _decoupled(logits, wanted, targets, beta).mean()
    shares, classes = targets.topk(_OF_A_MIXTURE)
    each = [_decoupled(logits, wanted, label, beta) for label in classes.unbind(1)]
    return temperature**2 * (shares * torch.stack(each, 1)).sum(1).mean()


def embedding_distance(embedding: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance by the squared length of the teacher's embedding: 0 alike, 1 for zeros.

    Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", on the last layer.
    """
    length = wanted.square().sum(1).clamp(min=torch.finfo(wanted.dtype).tiny)
    return ((embedding - wanted).square().sum(1) / length).mean()


def _decoupled(logits: Tensor, wanted: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Of each image, float N; the logits are softened already."""
    label = F.one_hot(labels, logits.shape[1]).bool()
    others, others_wanted = (x[~label].view(len(x), -1) for x in (logits, wanted))
    # (log p, log (1 − p)) of the label's class, neither by cancellation
    binary, binary_wanted = (
        torch.stack([x[label], rest.logsumexp(1)], 1)
        for x, rest in ((logits, others), (wanted, others_wanted))
    )
    return _divergence(binary_wanted, binary) + beta * _divergence(others_wanted, others)


def _divergence(wanted: Tensor, given: Tensor) -> Tensor:
    """KL(softmax(wanted) ‖ softmax(given)) of each row, float N."""
    log_wanted, log_given = F.log_softmax(wanted, 1), F.log_softmax(given, 1)
    return F.kl_div(log_given, log_wanted, reduction="none", log_target=True).sum(1)
