"""RandAugment and TrivialAugment with operations of its own for every image of a batch.

Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search
space"; Müller & Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
Augmentation" (its wide space). The images that drew the same operation are changed together,
each as strongly as it drew. Operations and their ranges are torchvision's; what comes in from
outside repeats the border, and images are sheared about their middle.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from tasks.training.geometry import resample
from tasks.training.to_device import sent

Change = Callable[[Tensor, Tensor], Tensor]
_BINS = 30  # steps of the magnitude
_SHIFT = 32  # pixels: TrivialAugment's largest


class Operation(NamedTuple):
    """A change of float n×3×S×S (0..1) by levels n×1×1×1, and its largest level by policy."""

    change: Change
    randaugment: float = 0.0
    trivialaugment: float = 0.0
    signed: bool = False


class RandomPolicy(v2.Transform):  # type: ignore[misc]
    """`randaugment` or `trivialaugment` of each image of a float N×3×S×S batch (0..255).

    RandAugment applies `operations` of `magnitude` (of 30) one after the other, TrivialAugment
    one of any magnitude.
    """

    def __init__(self, policy: str, operations: int, magnitude: int) -> None:
        super().__init__()
        self.policy = policy
        self.rounds = operations if policy == "randaugment" else 1
        self.magnitude = magnitude

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """For every round the operations (int64 N) and their levels (float N×1×1×1)."""
        count, size = len(flat_inputs[0]), flat_inputs[0].shape[-1]
        return {"rounds": [self._drawn(count, size) for _ in range(self.rounds)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply the rounds in turn."""
        images = inpt / 255
        for drawn, levels in params["rounds"]:
            for number, operation in enumerate(OPERATIONS.values()):
                chosen = (drawn == number).nonzero()[:, 0]
                if len(chosen) and number:  # the first is identity
                    rows = sent(chosen, images.device)
                    level = sent(levels[chosen], images.device)
                    images[rows] = operation.change(images[rows], level)
        return images * 255

    def _drawn(self, count: int, size: int) -> tuple[Tensor, Tensor]:
        drawn = torch.randint(len(OPERATIONS), (count,))
        if self.policy == "trivialaugment":
            magnitude = torch.randint(_BINS + 1, (count,))
        else:
            magnitude = torch.full((count,), self.magnitude)
        sign = 1 - 2 * torch.randint(2, (count,))
        signed = torch.tensor([one.signed for one in OPERATIONS.values()])[drawn]
        levels = self._largest(size)[drawn] * magnitude / _BINS * torch.where(signed, sign, 1)
        return drawn, levels[:, None, None, None]

    def _largest(self, size: int) -> Tensor:
        """The largest level of every operation, on images of side `size`."""
        limits = {name: getattr(one, self.policy) for name, one in OPERATIONS.items()}
        if self.policy == "trivialaugment":
            # Its shifts are pixels; of a small image, no more than leaves half of it to see.
            limits |= dict.fromkeys(("translate_x", "translate_y"), min(0.5, _SHIFT / size))
        return torch.tensor(list(limits.values()))


def _move(images: Tensor, **entries: Tensor) -> Tensor:
    """Resample by the identity with some entries of the N×2×3 matrix replaced."""
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    for place, values in entries.items():
        theta[:, int(place[1]), int(place[2])] = values[:, 0, 0, 0]
    return resample(images, theta)


def _rotate(images: Tensor, degrees: Tensor) -> Tensor:
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    return _move(images, m00=cos, m01=-sin, m10=sin, m11=cos)


def _pixels(share: Tensor, images: Tensor) -> Tensor:
    """A shift by whole pixels, in the coordinates of the sampling grid."""
    size = images.shape[-1]
    return (share * size).trunc() * (2 / size)


def _blend(images: Tensor, base: Tensor, level: Tensor) -> Tensor:
    """Away from `base` (or, of a level under 0, towards it) by 1 + level."""
    return (base + (images - base) * (1 + level)).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    grey: Tensor = F.rgb_to_grayscale(images, 1)
    return grey


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    step = 2 ** bits.round() / 255  # so many of the 8 bits are dropped
    return (images / step + 1e-4).floor() * step  # 1e-4: levels of grey are not whole in floats


OPERATIONS = {
    "identity": Operation(lambda x, level: x),
    "shear_x": Operation(lambda x, level: _move(x, m01=level), 0.3, 0.99, True),
    "shear_y": Operation(lambda x, level: _move(x, m10=level), 0.3, 0.99, True),
    # Shares of the side; TrivialAugment's limit depends on it.
    "translate_x": Operation(lambda x, level: _move(x, m02=_pixels(level, x)), 150 / 331, 1, True),
    "translate_y": Operation(lambda x, level: _move(x, m12=_pixels(level, x)), 150 / 331, 1, True),
    "rotate": Operation(_rotate, 30, 135, True),
    "brightness": Operation(
        lambda x, level: _blend(x, torch.zeros_like(x), level), 0.9, 0.99, True
    ),
    "colour": Operation(lambda x, level: _blend(x, _grey(x), level), 0.9, 0.99, True),
    "contrast": Operation(
        lambda x, level: _blend(x, _grey(x).mean((1, 2, 3), keepdim=True), level), 0.9, 0.99, True
    ),
    "sharpness": Operation(
        lambda x, level: _blend(x, F.adjust_sharpness(x, 0.0), level), 0.9, 0.99, True
    ),
    "posterize": Operation(_posterize, 4, 6),
    "solarize": Operation(lambda x, level: torch.where(x >= 1 - level, 1 - x, x), 1, 1),
    "autocontrast": Operation(lambda x, level: F.autocontrast(x)),
    "equalize": Operation(lambda x, level: F.equalize(x)),
}
