"""Plasma fractals by the diamond-square algorithm (Fournier, Fussell & Carpenter 1982)."""

import torch
from torch import Generator, Tensor

_ROUGH = 100.0  # of the coarsest step; only its ratio to the finer ones matters


def plasma(count: int, side: int, decay: float, draw: Generator) -> Tensor:
    """`count` height maps in 0..1, float32 N×side×side, each from 0 to 1 before it is cut.

    The roughness of every finer step is that of the one before by `decay`. The map wraps around;
    its side is the next power of two, of which the first rows and columns are taken.
    """
    whole = 1 << max(1, (side - 1).bit_length())
    heights = torch.zeros(count, whole, whole)
    step, rough = whole, _ROUGH
    while step >= 2:
        half = step // 2

        def mean(total: Tensor, scale: float = rough) -> Tensor:
            noise = 2 * torch.rand(total.shape, generator=draw) - 1
            return total / 4 + scale * scale * noise

        corners = heights[:, ::step, ::step]
        rows = corners + corners.roll(-1, 1)
        heights[:, half::step, half::step] = mean(rows + rows.roll(-1, 2))
        centres = heights[:, half::step, half::step]
        beside, below = corners + corners.roll(-1, 2), corners + corners.roll(-1, 1)
        heights[:, ::step, half::step] = mean(beside + centres + centres.roll(1, 1))
        heights[:, half::step, ::step] = mean(below + centres + centres.roll(1, 2))
        step, rough = half, rough / decay
    heights -= heights.amin((1, 2), keepdim=True)
    heights /= heights.amax((1, 2), keepdim=True)
    return heights[:, :side, :side]
