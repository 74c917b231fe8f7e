"""Parts of each training image hidden behind its mean colour: random erasing and cutout.

Both work on normalised float N×3×S×S, where the mean colour is 0.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from tasks.training.to_device import sent

_LEAST, _MOST, _RATIO = 0.02, 0.4, math.log(1 / 0.3)  # of the area, and of the sides: the paper's


class RandomErasing(v2.Transform):  # type: ignore[misc]
    """Erase a rectangle of any place and shape, 2 to 40 % of the area, with a probability.

    Zhong et al. 2020, "Random Erasing Data Augmentation".
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Centres and sides of the rectangles, N×2 each, in shares of the image's side."""
        count = len(flat_inputs[0])
        area = _LEAST + (_MOST - _LEAST) * torch.rand(count)
        stretch = ((torch.rand(count) * 2 - 1) * _RATIO / 2).exp()
        sides = area.sqrt()[:, None] * torch.stack([stretch, 1 / stretch], 1)
        sides = sides.clamp(max=1)
        centres = sides / 2 + torch.rand(count, 2) * (1 - sides)  # all of it inside
        erased = torch.rand(count, 1) < self.probability
        return {"centres": centres, "sides": sides * erased}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The mean colour inside."""
        return inpt * ~boxes(params["centres"], params["sides"], inpt)


class RandomCutout(v2.Transform):  # type: ignore[misc]
    """Cut a square, a share of the side wide, out of every image; it may reach beyond the border.

    DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".
    """

    def __init__(self, side: float) -> None:
        super().__init__()
        self.side = side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Centres of the squares, N×2, in shares of the image's side."""
        return {"centres": torch.rand(len(flat_inputs[0]), 2)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The mean colour inside."""
        centres = params["centres"]
        return inpt * ~boxes(centres, torch.full_like(centres, self.side), inpt)


def boxes(centres: Tensor, sides: Tensor, images: Tensor) -> Tensor:
    """Which pixels of N×3×S×S lie in their image's box, bool N×1×S×S on the images' device.

    `centres` and `sides` are N×2 (along the width, along the height), in shares of the side.
    """
    size = images.shape[-1]
    pixels = (torch.arange(size, device=images.device) + 0.5) / size
    centres, half = sent(centres, images.device), sent(sides, images.device) / 2
    inside = (pixels - centres[:, :, None]).abs() < half[:, :, None]
    return (inside[:, 1, :, None] & inside[:, 0, None, :])[:, None]
