"""Blur of lenses and of movement: float32 N×3×S×S in 0..1 to the same."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tasks.evaluation.corruptions.kernels import convolved, disk, gaussian_blurred, streaks

_TILT = 45.0  # degrees: movement is horizontal, give or take that


def defocus_blur(images: Tensor, draw: Generator, radius: float, softness: float) -> Tensor:
    """Out of focus: a disk of `radius` pixels with a soft edge."""
    return convolved(images, disk(radius, softness)[None], "reflect")


def motion_blur(images: Tensor, draw: Generator, radius: int, sigma: float) -> Tensor:
    """The camera moves, each time in another direction."""
    angles = _TILT * (2 * torch.rand(len(images), generator=draw) - 1)
    return convolved(images, streaks(angles, radius, sigma), "replicate")


def zoom_blur(images: Tensor, draw: Generator, steps: int, step: float) -> Tensor:
    """The camera moves ahead: the mean of the image and its zooms by 1, 1 + step, 1 + 2·step..."""
    total = images.clone()
    for number in range(steps):
        total += zoomed(images, 1 + number * step)
    return total / (steps + 1)


def zoomed(images: Tensor, zoom: float) -> Tensor:
    """The middle of each image, enlarged to the whole by linear interpolation."""
    side = images.shape[-1]
    part = math.ceil(side / zoom)
    start = (side - part) // 2
    middle = images[..., start : start + part, start : start + part]
    size = round(part * zoom)
    larger = F.interpolate(middle, size=(size, size), mode="bilinear", align_corners=True)
    cut = (size - side) // 2
    return larger[..., cut : cut + side, cut : cut + side]


def glass_blur(images: Tensor, draw: Generator, sigma: float, reach: int, rounds: int) -> Tensor:
    """Frosted glass: blurred, pixels replaced by neighbours within `reach`, blurred again.

    The paper speaks of a shuffle. Its code means to swap two pixels and copies one to the other
    (they are views of one array); the published images are what that gives, and so are these.
    """
    soft = (gaussian_blurred(images, sigma) * 255 + 1e-3).floor() / 255  # bytes, by definition
    count, channels, side, _ = soft.shape
    pixels = soft.permute(2, 3, 0, 1).reshape(side * side, count, channels).contiguous()
    which = torch.arange(count)[None, :]
    for _ in range(rounds):
        for rows, columns in _fronts(side, reach):
            here = (rows * side + columns)[:, None]
            shape = (2, len(rows), count)
            down, right = torch.randint(-reach, reach, shape, generator=draw)
            there = here + down * side + right
            pixels[here, which] = pixels[there, which]
    shuffled = pixels.reshape(side, side, count, channels).permute(2, 3, 0, 1).contiguous()
    return gaussian_blurred(shuffled, sigma)


def _fronts(side: int, reach: int) -> list[tuple[Tensor, Tensor]]:
    """Pixels that can be replaced at once, in an order that ends as one by one would.

    By definition that goes from the lower right to the upper left. Pixels more than 2·reach
    columns apart do not meet, so each row may follow the one below it at that distance: those of
    a slanted line are replaced together.
    """
    inner = torch.arange(side - reach, reach, -1)
    rows, columns = (part.flatten() for part in torch.meshgrid(inner, inner, indexing="ij"))
    if not len(rows):
        return []
    turn = (side - columns) + (2 * reach + 1) * (side - rows)
    order = torch.argsort(turn, stable=True)
    sizes = torch.unique_consecutive(turn[order], return_counts=True)[1].tolist()
    fronts = (torch.split(part[order], sizes) for part in (rows, columns))
    return list(zip(*fronts, strict=True))
