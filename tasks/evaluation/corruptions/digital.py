"""What screens, codecs and resizing do: float32 N×3×S×S in 0..1 to the same, or bytes to bytes."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from tasks.evaluation.corruptions.kernels import gaussian_blurred

Picture = npt.NDArray[np.uint8]


def contrast(images: Tensor, draw: Generator, share: float) -> Tensor:
    """That share of the contrast is left, around the mean of each channel."""
    means = images.mean((2, 3), keepdim=True)
    return (images - means) * share + means


def elastic_transform(
    images: Tensor, draw: Generator, strength: float, smoothness: float, jitter: float
) -> Tensor:
    """Stretched here and there (Simard et al. 2003); all numbers are shares of the side.

    Each pixel comes from elsewhere: by noise up to ±`strength`, smoothed by a Gaussian of
    `smoothness`, and by an affine map that moves three points by up to ±`jitter`.
    """
    count, _, side, _ = images.shape
    noise = 2 * torch.rand(count, 2, side, side, generator=draw) - 1
    moved = strength * side * gaussian_blurred(noise, smoothness * side, truncate=3.0)
    grid = _pixels(side) + _affine(count, side, jitter, draw) + moved.permute(0, 2, 3, 1)
    return F.grid_sample(
        images, 2 * grid / (side - 1) - 1, "bilinear", "reflection", align_corners=True
    )


def pixelate(images: Picture, draw: Generator, share: float) -> Picture:
    """Shrunk to that share of the side, and enlarged again without interpolation."""
    side = images.shape[1]
    small = max(1, int(side * share))

    def through(image: Image.Image) -> Image.Image:
        less = image.resize((small, small), Image.Resampling.BOX)
        return less.resize((side, side), Image.Resampling.NEAREST)

    return _each(images, through)


def jpeg_compression(images: Picture, draw: Generator, quality: int) -> Picture:
    """Saved as JPEG of that quality."""

    def through(image: Image.Image) -> Image.Image:
        content = io.BytesIO()
        image.save(content, "JPEG", quality=quality)
        return Image.open(content)

    return _each(images, through)


ON_BYTES = (pixelate, jpeg_compression)  # uint8 N×S×S×3 to the same: files hold bytes


def as_bytes(images: Tensor) -> Picture:
    """Float N×3×S×S, 0..1, as uint8 N×S×S×3: cut off, not rounded, as the published code does.

    The little that is added makes up for float32: 99.99999 is 100.
    """
    levels = (images.clamp(0, 1) * 255 + 1e-3).to(torch.uint8)
    return np.asarray(levels.permute(0, 2, 3, 1).contiguous())


def as_floats(images: npt.NDArray[np.uint8]) -> Tensor:
    """The reverse."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def _each(images: Picture, through: Callable[[Image.Image], Image.Image]) -> Picture:
    """Each image through a function of Pillow."""
    return np.stack([np.asarray(through(Image.fromarray(image))) for image in images])


def _pixels(side: int) -> Tensor:
    """The x and y of each pixel, 1×S×S×2."""
    at = torch.arange(side, dtype=torch.float32)
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), 2)[None]


def _affine(count: int, side: int, jitter: float, draw: Generator) -> Tensor:
    """How far an affine map that moves three points of a triangle moves each pixel, N×S×S×2."""
    middle, reach = side // 2, side // 3
    corner = [(middle + reach, middle + reach), (middle + reach, middle - reach)]
    points = torch.tensor([*corner, (middle - reach, middle - reach)], dtype=torch.float32)
    moved = jitter * side * (2 * torch.rand(count, 3, 2, generator=draw) - 1)
    if reach == 0:
        return moved.mean(1)[:, None, None]
    known = torch.cat([points, torch.ones(3, 1)], 1)
    maps = torch.linalg.solve(known.expand(count, 3, 3), moved)  # N×3×2
    at = torch.cat([_pixels(side), torch.ones(1, side, side, 1)], 3).view(1, side * side, 3)
    moves: Tensor = at @ maps
    return moves.view(count, side, side, 2)
