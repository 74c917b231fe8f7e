"""Whether a trained network over- or underfits, by its curves, and what to try.

The network is asked for some of its training images as they are, without augmentation: that loss
compares with the validation loss, whatever loss, smoothing or mixing it was trained with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from tasks.schema import Train
from tasks.training.loop import Epoch, FitResult, predict
from tasks.training.models import ModelSpec

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit

_IMAGES = 1000  # of the training images, at most
_LITTLE = 0.5  # share of the labels' entropy: with more left, little has been learnt
_GAP = 0.05  # accuracy that held-out images may lose against training images at the best epoch
_SURE = 2.0  # standard errors
_RISE = 1.2  # times the lowest validation loss at which the curve has turned


@dataclass(frozen=True)
class Fitness:
    """How the network does on training images as they are, and a warning if that tells one."""

    train_loss: float  # cross-entropy, nats per image
    train_accuracy: float
    state: str  # "good", "overfitting" or "underfitting"
    warning: str | None


def judge(
    model: nn.Module,
    splits: "tuple[ShardSplit, ShardSplit]",
    spec: ModelSpec,
    config: Train,
    result: FitResult,
) -> Fitness:
    """Judge a network that `fit` gave by the training and the validation split."""
    (train, validation), best, history = splits, result.best, result.history
    loss, accuracy = _on_training_images(model, train, spec)
    state = "good"
    if loss > _LITTLE * _entropy(train.labels):
        state = "underfitting"
    elif _worse(accuracy, best, len(validation), _GAP) or (
        _turned(history, best) and _worse(accuracy, history[-1], len(validation), 0.0)
    ):
        state = "overfitting"
    advice = {"underfitting": _more(config), "overfitting": _less(config)}
    warning = None
    if state in advice:
        warning = (
            f"{state}: accuracy {accuracy:.1%} on training images, {best.validation_accuracy:.1%} "
            f"on validation images; loss {loss:.3g} and {best.validation_loss:.3g}, at the end "
            f"{history[-1].validation_loss:.3g}; try {advice[state]}"
        )
    return Fitness(loss, accuracy, state, warning)


def _on_training_images(
    model: nn.Module, train: "ShardSplit", spec: ModelSpec
) -> tuple[float, float]:
    rows = np.linspace(0, len(train) - 1, min(len(train), _IMAGES)).astype(np.int64)
    images = train.images[rows]
    edge = (images.shape[1] - spec.size) // 2  # of the margin: the middle
    middle = slice(edge, edge + spec.size)
    logits = torch.from_numpy(predict(model, images[:, middle, middle], spec)).double()
    labels = torch.from_numpy(train.labels[rows])
    accuracy = (logits.argmax(1) == labels).double().mean()
    return float(F.cross_entropy(logits, labels)), float(accuracy)


def _entropy(labels: npt.NDArray[np.int64]) -> float:
    """Of the classes, in nats: the loss of who knows nothing but how frequent each is."""
    shares = np.bincount(labels) / len(labels)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _worse(accuracy: float, epoch: Epoch, validated: int, allowed: float) -> bool:
    """Whether held-out images do worse by more than is allowed, and than chance would have."""
    held_out = epoch.validation_accuracy
    error = (max(held_out * (1 - held_out), 1 / validated) / validated) ** 0.5
    return bool(accuracy - held_out > max(allowed, _SURE * error))


def _turned(history: Sequence[Epoch], best: Epoch) -> bool:
    """Whether validation got worse since the best epoch, while training got better."""
    last = history[-1]
    worse = last.validation_loss > _RISE * best.validation_loss
    return worse and last.train_loss < best.train_loss and last.epoch > best.epoch


def _more(config: Train) -> str:
    tries = [f"more train.epochs than {config.epochs}", "another train.lr"]
    if config.architecture == "resnet_small":
        tries.append(f"a train.width above {config.width}")
    if config.weight_decay or config.label_smoothing:
        tries.append("a smaller train.weight_decay or train.label_smoothing")
    return ", ".join([*tries, "less augmentation"])


def _less(config: Train) -> str:
    tries = ["more images", "stronger augmentation"]
    tries.append(f"a train.weight_decay above {config.weight_decay:g}")
    if config.label_smoothing < 0.1:
        tries.append("train.label_smoothing 0.1")
    tries.append("train.weights to start from, or a smaller network")
    return ", ".join(tries)
