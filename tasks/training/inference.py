"""Logits of many images, batch by batch."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.training.models import ModelSpec, normalise
from tasks.training.reading import read_ahead
from tasks.training.to_device import sent

if TYPE_CHECKING:
    from tasks.pixels import Images

Floats = npt.NDArray[np.float32]
_BATCH = 256
_TOGETHER = 32  # batches whose logits a GPU gives at once: it is waited for each time


def predict(
    model: nn.Module, images: "Images", spec: ModelSpec, rows: slice = slice(None)
) -> Floats:
    """Logits of `rows` of uint8 N×S×S×3 images, float32 n×C, evaluated on the model's device."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits: list[Tensor] = []
    coming: list[Tensor] = []
    first, end, _ = rows.indices(len(images))
    parts = [slice(at, min(at + _BATCH, end)) for at in range(first, end, _BATCH)]
    with torch.inference_mode():
        for number, batch in enumerate(read_ahead(images, parts), 1):
            coming.append(model(normalise(sent(batch, device), spec)).float())
            if number % _TOGETHER == 0 or number == len(parts):
                logits.append(torch.cat(coming).cpu())
                coming.clear()
    model.train(was_training)
    return np.asarray(torch.cat(logits).numpy(), np.float32)
