"""Random changes of whole batches on the training device, as torchvision v2 transforms.

torchvision's own v2 transforms draw one set of random numbers for all that they are given.
These draw one for every image of the batch and still run as a few tensor operations
(docs/benchmarks.md has the rate). The random numbers come from torch's CPU generator, so a seed
means the same changes on any device.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from tasks.schema import Augment
from tasks.training.models import ModelSpec


class RandomAffine(v2.Transform):  # type: ignore[misc]
    """Flip, shift, rotate and scale each image of a float N×3×S×S batch differently.

    One bilinear resampling; what comes in from outside repeats the border.
    """

    def __init__(self, flip: bool, shift: float, rotate: float, scale: float) -> None:
        super().__init__()
        self.flip = flip
        self.shift = shift
        self.rotate = rotate
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The N×2×3 matrices from output to input coordinates (both -1..1)."""
        count = len(flat_inputs[0])
        angle = _uniform(count, math.radians(self.rotate))
        zoom = 1 / (1 + _uniform(count, self.scale))
        mirror = 1 - 2 * (torch.rand(count) < 0.5 * self.flip).float()
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        x, y = 2 * _uniform(count, self.shift), 2 * _uniform(count, self.shift)
        rows = [torch.stack([cos * mirror, -sin, x], 1), torch.stack([sin * mirror, cos, y], 1)]
        return {"theta": torch.stack(rows, 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resample the batch."""
        grid = _sampling_grid(params["theta"].to(inpt.device), inpt.shape[-1])
        return F.grid_sample(inpt, grid, padding_mode="border", align_corners=False)


class RandomLight(v2.Transform):  # type: ignore[misc]
    """Change brightness and contrast of each image of a float N×3×S×S batch (0..255)."""

    def __init__(self, brightness: float, contrast: float) -> None:
        super().__init__()
        self.brightness = brightness
        self.contrast = contrast

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Factors of brightness and contrast, N×1×1×1 each."""
        shape = (len(flat_inputs[0]), 1, 1, 1)
        return {
            "brightness": 1 + _uniform(shape[0], self.brightness).view(shape),
            "contrast": 1 + _uniform(shape[0], self.contrast).view(shape),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Contrast about the image's own mean, then brightness, kept within 0..255."""
        brightness, contrast = (params[key].to(inpt.device) for key in ("brightness", "contrast"))
        offset = inpt.mean((1, 2, 3), keepdim=True) * (1 - contrast) * brightness
        return (inpt * (contrast * brightness)).add_(offset).clamp_(0, 255)


def augmentation(spec: ModelSpec, config: Augment) -> Callable[[Tensor], Tensor]:
    """The transform of training batches: uint8 N×P×P×3 to normalised float N×3×S×S.

    Of images packed with a margin (P > S) each gives a random part of the spec's size S. Without
    one, and with everything turned off, it gives exactly what `models.normalise` gives.
    """
    steps: list[v2.Transform] = [v2.ToDtype(torch.float32)]
    if config.flip or config.shift or config.rotate or config.scale:
        steps.append(RandomAffine(config.flip, config.shift, config.rotate, config.scale))
    if config.brightness or config.contrast:
        steps.append(RandomLight(config.brightness, config.contrast))
    steps.append(v2.Normalize([255 * m for m in spec.mean], [255 * s for s in spec.std], True))
    transform = v2.Compose(steps)

    def apply(images: Tensor) -> Tensor:
        batch: Tensor = transform(random_crop(images, spec.size).permute(0, 3, 1, 2))
        return batch.contiguous(memory_format=torch.channels_last)

    return apply


def random_crop(images: Tensor, size: int) -> Tensor:
    """A size×size part of each of N×P×P×3 images, at a random place of its own."""
    count, side = images.shape[:2]
    if side == size:
        return images
    places = torch.randint(side - size + 1, (2, count, 1)).to(images.device)
    rows, columns = places + torch.arange(size, device=images.device)
    each = torch.arange(count, device=images.device)[:, None, None]
    return images[each, rows[:, :, None], columns[:, None, :]]


def _sampling_grid(theta: Tensor, size: int) -> Tensor:
    """The points of `F.affine_grid` (N×S×S×2), by broadcasting: many times faster on a CPU."""
    centres = (2 * torch.arange(size, device=theta.device) + 1) / size - 1
    x, y, shift = (theta[:, :, None, None, column] for column in range(3))
    return (x * centres + (y * centres[:, None] + shift)).permute(0, 2, 3, 1)


def _uniform(count: int, bound: float) -> Tensor:
    return (torch.rand(count) * 2 - 1) * bound
