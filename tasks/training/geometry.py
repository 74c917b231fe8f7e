"""Where the pixels of each training image go: crops, and all affine changes in one resampling."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from tasks.training.to_device import sent

_RATIO = math.log(4 / 3)  # of the sides of a resized crop, either way


class RandomAffine(v2.Transform):  # type: ignore[misc]
    """Flip, shift, rotate, scale, shear and crop each image of a float N×3×S×S batch differently.

    One bilinear resampling; what comes in from outside repeats the border. `shift` is a share of
    the side, `rotate` and `shear` are degrees, `scale` is a share; `crop` is the smallest share
    of the area that is cut out and enlarged to the whole (Szegedy et al. 2015, "Going deeper
    with convolutions"), 1 for none.
    """

    def __init__(
        self,
        flip: bool = False,
        vertical_flip: bool = False,
        shift: float = 0.0,
        rotate: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        crop: float = 1.0,
    ) -> None:
        super().__init__()
        self.flip, self.vertical_flip = flip, vertical_flip
        self.shift, self.rotate, self.scale, self.shear = shift, rotate, scale, shear
        self.crop = crop

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The N×2×3 matrices from output to input coordinates (both -1..1)."""
        count = len(flat_inputs[0])
        angle = uniform(count, math.radians(self.rotate))
        zoom = 1 / (1 + uniform(count, self.scale))
        mirror = 1 - 2 * (torch.rand(count) < 0.5 * self.flip).float()
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        x, y = 2 * uniform(count, self.shift), 2 * uniform(count, self.shift)
        right, down = torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)
        # Drawn only where they are asked for: a recipe without them draws what it always drew.
        if self.shear:
            down = down + right * uniform(count, math.radians(self.shear)).tan()[:, None]
        if self.vertical_flip:
            down = down * (1 - 2 * (torch.rand(count) < 0.5).float())[:, None]
        theta = torch.stack([right * mirror[:, None], down, torch.stack([x, y], 1)], 2)
        return {"theta": theta if self.crop == 1 else theta @ _random_boxes(count, self.crop)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resample the batch."""
        return resample(inpt, params["theta"])


def resample(images: Tensor, theta: Tensor) -> Tensor:
    """Float N×3×S×S moved by N×2×3 matrices from output to input coordinates (both -1..1)."""
    grid = _sampling_grid(sent(theta, images.device), images.shape[-1])
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def random_crop(images: Tensor, size: int, padding: int = 0) -> Tensor:
    """A size×size part of each of N×P×P×3 images, at a random place of its own.

    The place may reach `padding` pixels beyond the image, which goes on there as in a mirror.
    """
    count, side = images.shape[:2]
    padding = min(padding, side - 1)
    if side == size and not padding:
        return images
    drawn = torch.randint(side + 2 * padding - size + 1, (2, count, 1)) - padding
    # Only the places are sent, not a number for every pixel.
    places, device = sent(drawn, images.device), images.device
    rows, columns = _mirrored(places + torch.arange(size, device=device), side)
    starts = torch.arange(count, device=device)[:, None, None] * side**2
    pixels = (starts + rows[:, :, None] * side + columns[:, None, :]).flatten()
    cut = images.reshape(-1, 3).index_select(0, pixels)
    return cut.view(count, size, size, 3)


def uniform(count: int, bound: float) -> Tensor:
    """`count` numbers between -bound and bound, from torch's CPU generator."""
    return (torch.rand(count) * 2 - 1) * bound


def _random_boxes(count: int, least: float) -> Tensor:
    """N×3×3 matrices from output coordinates to a box of `least`..1 of the area inside -1..1."""
    area = least + (1 - least) * torch.rand(count)
    stretch = (uniform(count, _RATIO) / 2).exp()
    sides = area.sqrt()[:, None] * torch.stack([stretch, 1 / stretch], 1)
    sides = sides.clamp(max=1)
    centres = (torch.rand(count, 2) * 2 - 1) * (1 - sides)
    boxes = torch.diag_embed(torch.cat([sides, torch.ones(count, 1)], 1))
    boxes[:, :2, 2] = centres
    return boxes


def _mirrored(places: Tensor, side: int) -> Tensor:
    """Positions outside 0..side-1 reflected at the first and the last pixel."""
    inside = places.abs()
    return torch.where(inside < side, inside, 2 * (side - 1) - inside)


def _sampling_grid(theta: Tensor, size: int) -> Tensor:
    """The points of `F.affine_grid` (N×S×S×2), by broadcasting: many times faster on a CPU."""
    centres = (2 * torch.arange(size, device=theta.device) + 1) / size - 1
    x, y, shift = (theta[:, :, None, None, column] for column in range(3))
    return (x * centres + (y * centres[:, None] + shift)).permute(0, 2, 3, 1)
