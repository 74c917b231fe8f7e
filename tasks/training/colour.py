"""The values of each training image's pixels, changed by as much as is drawn for it.

All take and give float N×3×S×S on the 0..255 scale.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from tasks.training.geometry import uniform
from tasks.training.to_device import sent

# Luminance and two axes of chrominance (YIQ, as in NTSC).
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_SHARPEST = 0.1  # pixels; a Gaussian that narrow leaves the image as it is


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
            "brightness": 1 + uniform(shape[0], self.brightness).view(shape),
            "contrast": 1 + uniform(shape[0], self.contrast).view(shape),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Contrast about the image's own mean, then brightness, kept within 0..255."""
        brightness, contrast = (sent(params[k], inpt.device) for k in ("brightness", "contrast"))
        offset = inpt.mean((1, 2, 3), keepdim=True) * (1 - contrast) * brightness
        return (inpt * (contrast * brightness)).add_(offset).clamp_(0, 255)


class RandomColour(v2.Transform):  # type: ignore[misc]
    """Scale the saturation and turn the hue of each image; grey stays as it is.

    The chrominance of YIQ is scaled and turned, which keeps the luminance and is one 3×3 matrix
    an image. `hue` is a share of the whole circle.
    """

    def __init__(self, saturation: float, hue: float) -> None:
        super().__init__()
        self.saturation = saturation
        self.hue = hue

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The N×3×3 matrices from RGB to RGB."""
        count = len(flat_inputs[0])
        saturation = 1 + uniform(count, self.saturation)
        angle = uniform(count, 2 * math.pi * self.hue)
        cos, sin = saturation * angle.cos(), saturation * angle.sin()
        turn = torch.zeros(count, 3, 3)
        turn[:, 0, 0] = 1
        turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cos, -sin, sin, cos
        return {"matrix": torch.linalg.inv(_YIQ) @ turn @ _YIQ}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Multiply every pixel by its image's matrix, kept within 0..255."""
        turned = sent(params["matrix"], inpt.device) @ inpt.flatten(2)
        return turned.view(inpt.shape).clamp_(0, 255)


class RandomBlur(v2.Transform):  # type: ignore[misc]
    """Blur each image by a Gaussian of its own width: 0..`largest` pixels of deviation."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The weights of the neighbours, N×(2R+1), summing to 1."""
        deviation = (torch.rand(len(flat_inputs[0])) * self.largest).clamp(min=_SHARPEST)
        radius = min(math.ceil(2.5 * self.largest), flat_inputs[0].shape[-1] - 1)
        offsets = torch.arange(-radius, radius + 1) / deviation[:, None]
        return {"weights": torch.softmax(-offsets.square() / 2, 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Along the rows, then along the columns; the border is mirrored."""
        weights = sent(params["weights"], inpt.device)
        return _blur_rows(_blur_rows(inpt, weights).mT, weights).mT


class RandomNoise(v2.Transform):  # type: ignore[misc]
    """Add Gaussian noise, the same to all channels, of a deviation up to `largest` (of 1)."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The noise, N×1×S×S."""
        count, _, height, width = flat_inputs[0].shape
        deviation = 255 * self.largest * torch.rand(count, 1, 1, 1)
        return {"noise": deviation * torch.randn(count, 1, height, width)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Add it, kept within 0..255."""
        return (inpt + sent(params["noise"], inpt.device)).clamp_(0, 255)


def _blur_rows(images: Tensor, weights: Tensor) -> Tensor:
    """Sums of shifted images: a convolution per image runs no faster, and slower on a CPU."""
    taps, width = weights.shape[1], images.shape[-1]
    padded = F.pad(images, (taps // 2, taps // 2, 0, 0), mode="reflect")
    blurred = torch.zeros_like(images)
    for tap in range(taps):
        blurred += padded[..., tap : tap + width] * weights[:, tap, None, None, None]
    return blurred
