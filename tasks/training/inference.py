"""Logits of many images, batch by batch."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tasks.training.models import ModelSpec, normalise

Floats = npt.NDArray[np.float32]
_BATCH = 256


def predict(model: nn.Module, images: npt.NDArray[np.uint8], spec: ModelSpec) -> Floats:
    """Logits of uint8 N×S×S×3 images, float32 N×C, in evaluation mode on the model's device."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(np.array(images[start : start + _BATCH]))
            logits.append(model(normalise(batch.to(device), spec)).float().cpu())
    model.train(was_training)
    return np.asarray(torch.cat(logits).numpy(), np.float32)
