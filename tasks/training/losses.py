"""The training losses: cross-entropy and what corrects it for classes of unequal size.

Targets are labels (int64 N) or, of mixed images, soft targets (float N×C whose rows sum to 1).
Every loss is linear in the targets: that of a mixture is the mixture of the losses.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.schema import Imbalance
from tasks.training.to_device import sent

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of (logits N×C, targets, augmented normalised inputs N×3×S×S): the mean in nats per image.

Logits of half precision are taken to float32 first."""


def training_loss(config: Imbalance, smoothing: float, counts: npt.NDArray[np.int64]) -> Loss:
    """The loss that the sections ask for; `counts` (C) are the training images of each class."""
    weights = torch.from_numpy(class_weights(config, counts)).float()
    prior = torch.from_numpy(config.logit_adjustment * log_prior(counts)).float()
    if config.focal_gamma:
        return _focal(config.focal_gamma, weights, smoothing)
    if config.class_weights != "none":
        return _weighted(weights, smoothing)
    if config.logit_adjustment:
        return _adjusted(prior, smoothing)

    def cross_entropy(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)

    return cross_entropy


def class_counts(labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """Images of each class, int64 C."""
    return np.bincount(labels, minlength=classes).astype(np.int64)


def class_weights(config: Imbalance, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The weight of each class in the loss, float C: 1 on average over the training images.

    `inverse` is 1/n of a class of n images, `effective_number` (1 - beta) / (1 - beta^n): Cui
    et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples".
    """
    images = np.maximum(counts, 1).astype(np.float64)
    if config.class_weights == "inverse":
        weights = 1 / images
    elif config.class_weights == "effective_number":
        weights = (1 - config.beta) / (1 - config.beta**images)
    else:
        return np.ones(len(counts))
    return np.asarray(weights * (counts.sum() / (weights @ counts)))


def validation_weights(config: Imbalance, counts: npt.NDArray[np.int64]) -> Tensor | None:
    """The weight of each class in the loss on validation images, float64 C; None: all alike.

    It is what the remedy has the network minimise: where every class shall count the same, a
    validation loss that the large classes rule would keep an epoch in which they still do. Not
    so for sampling: the repeated images of rare classes overfit early, and a loss weighted
    towards them stops there.
    """
    images = torch.from_numpy(np.maximum(counts, 1)).double()
    if config.class_weights != "none":
        return torch.from_numpy(class_weights(config, counts))
    if config.logit_adjustment:
        return images**-config.logit_adjustment
    return None


def log_prior(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The log of each class's share of the training images; one without any counts as one."""
    images = np.maximum(counts, 1)
    return np.asarray(np.log(images / images.sum()))


def _weighted(weights: Tensor, smoothing: float) -> Loss:
    """Cross-entropy with each class's term weighted; divided by the images, not the weights.

    (Divided by the batch's weights, as torch does, a rare class would count less in a batch
    that happens to hold more of it, and soft targets would be scaled otherwise than labels.)
    """

    def loss(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        return F.cross_entropy(
            logits.float(),
            targets,
            sent(weights, logits.device),
            reduction="none",
            label_smoothing=smoothing,
        ).mean()

    return loss


def _focal(gamma: float, weights: Tensor, smoothing: float) -> Loss:
    """Each class's term times (1 - p)^gamma: what is known already counts less.

    Lin et al. 2017, "Focal Loss for Dense Object Detection"; of soft targets, the mean of the
    losses of the classes.
    """

    def loss(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        log_p = F.log_softmax(logits.float(), 1)
        # 1 - p without cancellation, and with a finite slope where p is 1
        harder = (-torch.expm1(log_p)).clamp(min=1e-6) ** gamma
        terms = harder * log_p * sent(weights, logits.device)
        return -(soft(targets, logits.shape[1], smoothing) * terms).sum(1).mean()

    return loss


def _adjusted(prior: Tensor, smoothing: float) -> Loss:
    """Cross-entropy of logits + tau·log(share of the class); prediction does without.

    Menon et al. 2021, "Long-tail learning via logit adjustment": the network need not learn
    that a class is rare, so it does not hold it against an image either.
    """

    def loss(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        shifted = logits.float() + sent(prior, logits.device)
        return F.cross_entropy(shifted, targets, label_smoothing=smoothing)

    return loss


def soft(targets: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels or soft targets as float N×C, a share `smoothing` spread over all classes."""
    rows = targets if targets.is_floating_point() else F.one_hot(targets, classes).float()
    return rows * (1 - smoothing) + smoothing / classes
