"""From the host to the training device, without waiting for what a GPU still has to do.

A copy out of ordinary memory waits until the GPU has done all it was asked before; one out of
page-locked memory waits its turn there, while the host prepares the next step.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from tasks.pixels import Images

_SHARE = 0.25  # of the free memory that images may take
_CHUNK_BYTES = 64 << 20


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to a CUDA device it is still on its way, and there in time."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def resident(images: "Images", device: torch.device) -> Tensor | None:
    """All images, uint8 N×P×P×3, on a CUDA device, where they take up to a quarter of its memory.

    None where they take more of what is free, are packed encoded, or the device is the CPU.
    """
    if device.type != "cuda" or not isinstance(images, np.ndarray) or not len(images):
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if images.nbytes > _SHARE * free:
        return None
    there = torch.empty(images.shape, dtype=torch.uint8, device=device)
    step = max(1, _CHUNK_BYTES // images[0].nbytes)
    for at in range(0, len(images), step):
        # a copy: a slice of a memory map is read only, which torch does not take
        there[at : at + step].copy_(torch.from_numpy(images[at : at + step].copy()))
    return there
