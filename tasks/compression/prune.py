"""Structured pruning: whole channels leave the network, so every runtime gets faster.

Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (torch-pruning): channels that
depend on each other (residual sums, depthwise convolutions, batch norms) leave together, and
the group with the smallest mean weight norm leaves first. What remains is fine-tuned under
distillation from the network it came from.
"""

import copy
from pathlib import Path

import torch
from torch import nn

from tasks.compression.distil import distillation_loss
from tasks.data.shards import ShardSplit
from tasks.errors import CompressionError
from tasks.schema import Distil, Prune, Train
from tasks.training.finetuning import whole
from tasks.training.loop import fit
from tasks.training.models import Classifier, ModelSpec

_MULTIPLE, _SMALL_MULTIPLE, _NARROW = 8, 4, 16  # kernels work on 8 (or 4) channels at once


def prune(
    teacher: Classifier,
    spec: ModelSpec,
    splits: tuple[ShardSplit, ShardSplit],
    train: Train,
    settings: tuple[Prune, Distil],
    checkpoint: Path,
) -> Classifier:
    """A copy of `teacher` without `ratio` of its channels, fine-tuned under it.

    `splits` are training and validation. The same checkpoint is taken up again after a kill.
    Raises TrainingError when tuning diverges.
    """
    pruning, distil = settings
    student = remove_channels(teacher, spec, pruning.ratio)
    loss = distillation_loss(teacher, distil.temperature, distil.alpha)
    config = whole(train).model_copy(update={"epochs": pruning.epochs, "lr": pruning.lr})
    fit(student, *splits, spec, config, loss=loss, checkpoint=checkpoint)
    return student


def remove_channels(model: Classifier, spec: ModelSpec, ratio: float) -> Classifier:
    """A copy with at least `ratio` of the channels of every layer removed, not yet fine-tuned.

    What is left is rounded down to multiples of 8 (4 in networks with layers narrower than 16
    channels) where a layer has that many; the classes stay. Raises CompressionError for a vision
    transformer.
    """
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        raise CompressionError(
            "the heads of a vision transformer would have to leave whole, which is not supported"
        )
    import torch_pruning  # 3 s with its own imports; the distilled candidate does without

    slim = copy.deepcopy(model).train(False)
    pruner = torch_pruning.pruner.BasePruner(
        slim,
        torch.zeros(1, 3, spec.size, spec.size),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=_last_layer(slim),
        round_to=_multiple(slim),
    )
    pruner.step()
    return slim.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def _last_layer(model: Classifier) -> list[nn.Module]:
    """The head: its outputs are the classes."""
    return [layer for layer in model.head.modules() if isinstance(layer, nn.Linear)]


def _multiple(model: nn.Module) -> int:
    narrowest = min(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    return _SMALL_MULTIPLE if narrowest < _NARROW else _MULTIPLE
