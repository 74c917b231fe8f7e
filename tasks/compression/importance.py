"""How important each channel of a network is, by one of three measures.

magnitude          L2 norm of the weights that make and take the channel (Li et al. 2017,
                   "Pruning Filters for Efficient ConvNets"; Fang et al. 2023, "DepGraph")
batch_norm_scale   size of its batch norms' scales (Liu et al. 2017, "Learning Efficient
                   Convolutional Networks through Network Slimming")
taylor             |weight · gradient|, how much the training loss would change without it, the
                   mean over batches (Molchanov et al. 2019, "Importance Estimation for Neural
                   Network Pruning")

Each is the mean over all that depends on the channel, by the mean of its layer.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tasks.data.shards import ShardSplit
from tasks.errors import CompressionError
from tasks.training.models import Classifier, ModelSpec, normalise
from tasks.training.reading import read_ahead

_IMAGES, _BATCH = 2048, 64  # training images whose gradients tell; more change the order little


def measure_of(name: str, model: Classifier, spec: ModelSpec, train: ShardSplit, seed: int) -> Any:
    """torch-pruning's measure `name` for `model`, whose `grad` taylor takes for itself.

    It gets the sizes of the gradients of the cross-entropy on training images as they are. Raises
    CompressionError for batch_norm_scale where there are no batch norms.
    """
    from torch_pruning.pruner import importance  # 3 s with its own imports

    if name == "batch_norm_scale":
        if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            raise CompressionError(
                f"compress.prune.importance {name} needs batch norms, which {spec.architecture} "
                "does without; take magnitude or taylor"
            )
        return importance.BNScaleImportance()
    if name == "taylor":
        _take_gradients(model, spec, train, seed)
        return importance.GroupTaylorImportance()
    return importance.GroupMagnitudeImportance(p=2)


def _take_gradients(model: Classifier, spec: ModelSpec, train: ShardSplit, seed: int) -> None:
    """Leave in the weights the mean size of the gradient over batches of some training images.

    Where training has ended, the gradient over all of them is about zero: its size would say
    nothing. torch-pruning's measure is linear in it, so this is the mean of the batches' measures.
    """
    chosen = np.random.default_rng(seed).permutation(len(train))[:_IMAGES]
    rows = [np.sort(part) for part in np.array_split(chosen, -(-len(chosen) // _BATCH))]
    weights = list(model.parameters())
    sizes = [torch.zeros_like(weight) for weight in weights]
    for part, images in zip(rows, read_ahead(train.images, rows), strict=True):
        labels = torch.from_numpy(train.labels[part])
        inputs = normalise(_middle(images, spec.size), spec)
        loss = F.cross_entropy(model(inputs), labels)
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        torch._foreach_add_(sizes, torch._foreach_abs(found), alpha=1 / len(rows))
    for weight, size in zip(weights, sizes, strict=True):
        weight.grad = size


def _middle(images: torch.Tensor, size: int) -> torch.Tensor:
    """Of images packed with a margin, what is served."""
    margin = (images.shape[1] - size) // 2
    return images[:, margin : margin + size, margin : margin + size]
