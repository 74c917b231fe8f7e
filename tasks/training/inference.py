"""Logits of many images, batch by batch."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tasks.training.models import ModelSpec, normalise
from tasks.training.reading import read_ahead

if TYPE_CHECKING:
    from tasks.pixels import Images

Floats = npt.NDArray[np.float32]
_BATCH = 256


def predict(model: nn.Module, images: "Images", spec: ModelSpec) -> Floats:
    """Logits of uint8 N×S×S×3 images, float32 N×C, in evaluation mode on the model's device."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits = []
    starts = range(0, len(images), _BATCH)
    with torch.inference_mode():
        for batch in read_ahead(images, [slice(start, start + _BATCH) for start in starts]):
            logits.append(model(normalise(batch.to(device), spec)).float().cpu())
    model.train(was_training)
    return np.asarray(torch.cat(logits).numpy(), np.float32)
