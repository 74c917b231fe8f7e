"""Where the camera stands, what is in its way and how the light falls: N×3×S×S in 0..1 to the same.

What comes in from outside repeats the border. Directions are drawn for each image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_GREY = 0.5


def rotation(images: Tensor, draw: Generator, degrees: float) -> Tensor:
    """Turned by that angle, one way or the other."""
    turn = math.radians(degrees) * _signs(len(images), draw)
    cos, sin = turn.cos(), turn.sin()
    return _moved(images, torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2))


def shear(images: Tensor, draw: Generator, degrees: float) -> Tensor:
    """Sheared by that angle along x or y, one way or the other."""
    slant = math.tan(math.radians(degrees)) * _signs(len(images), draw)
    along_x = torch.rand(len(images), generator=draw) < 0.5
    nothing, one = torch.zeros_like(slant), torch.ones_like(slant)
    upper, lower = torch.where(along_x, slant, nothing), torch.where(along_x, nothing, slant)
    return _moved(images, torch.stack([one, upper, lower, one], 1).view(-1, 2, 2))


def scale(images: Tensor, draw: Generator, factor: float) -> Tensor:
    """Nearer or farther: larger or smaller by that factor."""
    zoom = factor ** _signs(len(images), draw)
    return _moved(images, torch.eye(2) / zoom[:, None, None])


def perspective(images: Tensor, draw: Generator, tilt: float) -> Tensor:
    """The camera tilts: one side of the image is farther away, by up to that share."""
    towards = 2 * math.pi * torch.rand(len(images), generator=draw)
    direction = tilt * torch.stack([towards.cos(), towards.sin()], 1)
    at = _positions(images.shape[-1])
    depth = 1 + torch.einsum("hwi,ni->nhw", at, direction)
    return _sampled(images, at[None] / depth[..., None])


def occlusion(images: Tensor, draw: Generator, share: float) -> Tensor:
    """A grey square somewhere before the image, of that share of its area."""
    side = images.shape[-1]
    wide = max(1, round(side * math.sqrt(share)))
    start = torch.randint(0, side - wide + 1, (2, len(images), 1), generator=draw)
    at = torch.arange(side)
    inside = (at >= start) & (at < start + wide)
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(hidden, _GREY, images)


def lighting(images: Tensor, draw: Generator, strength: float) -> Tensor:
    """Light from one side: brighter there and darker opposite, by up to that share."""
    towards = 2 * math.pi * torch.rand(len(images), generator=draw)
    direction = torch.stack([towards.cos(), towards.sin()], 1) / math.sqrt(2)
    slope = torch.einsum("hwi,ni->nhw", _positions(images.shape[-1]), direction)
    return images * (1 + strength * slope.unsqueeze(1))


def _signs(count: int, draw: Generator) -> Tensor:
    """−1 or 1, float [N]."""
    return 2.0 * torch.randint(0, 2, (count,), generator=draw) - 1


def _positions(side: int) -> Tensor:
    """The x and y of each pixel, its middle, in −1..1: S×S×2."""
    at = (torch.arange(side) + 0.5) * 2 / side - 1
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), 2)


def _moved(images: Tensor, maps: Tensor) -> Tensor:
    """Each image through its linear map around the middle, N×2×2 from output to input."""
    at = _positions(images.shape[-1])
    return _sampled(images, torch.einsum("nij,hwj->nhwi", maps, at))


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, "bilinear", "border", align_corners=False)
