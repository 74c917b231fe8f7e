"""Convolutions of whole batches, and the kernels of lenses and of movement."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_FAST = 32  # Fourier transforms of multiples of it are fast
_SUPERSAMPLED = 3  # side of the filter that softens the edge of a disk; 5 for wide ones


def convolved(images: Tensor, kernels: Tensor, border: str) -> Tensor:
    """Each image with its kernel, or all with the only one: N×C×S×S by N×K×K or 1×K×K, K odd.

    By Fourier transforms, since kernels are up to 81 wide. `border` is F.pad's mode.
    """
    side, reach = images.shape[-1], kernels.shape[-1] // 2
    padded = _padded(images, reach, border)
    whole = -(-padded.shape[-1] // _FAST) * _FAST
    shape = (whole, whole)
    spectrum = torch.fft.rfft2(padded, s=shape) * torch.fft.rfft2(kernels, s=shape).unsqueeze(1)
    product: Tensor = torch.fft.irfft2(spectrum, s=shape)
    # Without a wrap around only what lies 2·reach from the first row and column is right.
    return product[..., 2 * reach : 2 * reach + side, 2 * reach : 2 * reach + side]


def gaussian_blurred(
    images: Tensor, sigma: float, truncate: float = 4.0, border: str = "replicate"
) -> Tensor:
    """A Gaussian of `sigma` pixels, cut off at `truncate` times that; `border` is F.pad's mode."""
    reach = int(truncate * sigma + 0.5)
    if reach == 0:
        return images
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).view(1, 1, -1, 1)
    # Row by row it is a product with a matrix, which is what a unit matrix is blurred to.
    unit = torch.eye(images.shape[-1])[None, None]
    rows = F.conv2d(_padded(unit, reach, border, across=False), weights)[0, 0]
    return rows @ images @ rows.T


def disk(radius: float, softness: float) -> Tensor:
    """A lens out of focus: a disk of `radius` pixels, its edge softened by a Gaussian, K×K."""
    reach = max(8, math.ceil(radius))
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    inside = (at[:, None] ** 2 + at[None, :] ** 2 <= radius**2).float()
    inside = (inside / inside.sum()).view(1, 1, *inside.shape)
    side = _SUPERSAMPLED if radius <= 8 else _SUPERSAMPLED + 2
    return gaussian_blurred(inside, softness, (side // 2) / softness, "reflect")[0, 0]


def streaks(angles: Tensor, radius: int, sigma: float) -> Tensor:
    """Movement along an angle, degrees [N]: half a Gaussian on a line of 2·radius + 1 pixels.

    Gives N×K×K. The line starts in the middle, as that of ImageMagick's motion blur does.
    """
    steps = torch.arange(2 * radius + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = weights / weights.sum()
    radians = torch.deg2rad(angles)[:, None]
    rows = -torch.ceil(steps * torch.sin(radians) - 0.5).long()
    columns = -torch.ceil(steps * torch.cos(radians) - 0.5).long()
    reach = 2 * radius
    kernels = torch.zeros(len(angles), 2 * reach + 1, 2 * reach + 1)
    which = torch.arange(len(angles))[:, None].expand_as(rows)
    at = (which, rows + reach, columns + reach)
    return kernels.index_put(at, weights.expand(rows.shape), accumulate=True)


def _padded(images: Tensor, reach: int, border: str, across: bool = True) -> Tensor:
    """As F.pad, also where a mirrored border is wider than the image; `across`: columns too."""
    while reach > 0:
        step = min(reach, images.shape[-2] - 1) if border == "reflect" else reach
        images = F.pad(images, (step * across, step * across, step, step), mode=border)
        reach -= step
    return images
