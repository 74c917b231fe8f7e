"""How good a model in training is on the validation images, on all processes together."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.training import distributed
from tasks.training.inference import predict
from tasks.training.keeping import macro_f1
from tasks.training.models import ModelSpec

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit


class Validated(NamedTuple):
    """Cross-entropy (with the remedy's class weights), accuracy and macro-F1."""

    loss: float
    accuracy: float
    macro_f1: float


def validate(
    model: nn.Module, images: "ShardSplit", spec: ModelSpec, class_weights: Tensor | None
) -> Validated:
    """Measure the model on all images of the split; each process answers its part of them.

    `class_weights` are float64 [C], on the CPU.
    """
    count, device = len(images), next(model.parameters()).device
    own = torch.from_numpy(predict(model, images.images, spec, distributed.own_rows(count)))
    logits = distributed.gathered(own.to(device), count).cpu()
    labels = torch.from_numpy(np.array(images.labels))
    predicted = logits.argmax(1)
    return Validated(
        loss=float(F.cross_entropy(logits.double(), labels, class_weights)),
        accuracy=float((predicted == labels).double().mean()),
        macro_f1=macro_f1(predicted.numpy(), labels.numpy()),
    )
