"""Random changes of whole batches on the training device, as torchvision v2 transforms.

torchvision's own v2 transforms draw one set of random numbers for all that they are given.
These draw one for every image of the batch and still run as a few tensor operations
(docs/benchmarks.md has the rate). The random numbers come from torch's CPU generator, so a seed
means the same changes on any device. What turns two images into one is in
tasks.training.mixing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from tasks.schema import Recipe
from tasks.training.colour import RandomBlur, RandomColour, RandomLight, RandomNoise
from tasks.training.erasing import RandomCutout, RandomErasing
from tasks.training.geometry import RandomAffine, random_crop
from tasks.training.models import ModelSpec
from tasks.training.policies import RandomPolicy
from tasks.training.to_device import sent

Triple = tuple[float, float, float]


def augmentation(spec: ModelSpec, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """The transform of training batches: uint8 N×P×P×3 to normalised float N×3×S×S.

    Of images packed with a margin (P > S) each gives a random part of the spec's size S. Without
    one, and with everything turned off, it gives exactly what `models.normalise` gives.
    """
    normalised = _Normalised(spec.mean, spec.std)
    steps = [v2.ToDtype(torch.float32), *_geometry(recipe), *_colour(recipe), normalised]
    transform = v2.Compose([*steps, *_erasing(recipe)])
    padding = round(recipe.padding_crop * spec.size)

    def apply(images: Tensor) -> Tensor:
        batch: Tensor = transform(random_crop(images, spec.size, padding).permute(0, 3, 1, 2))
        return batch.contiguous(memory_format=torch.channels_last)

    return apply


class _Normalised(v2.Transform):  # type: ignore[misc]
    """`v2.Normalize` in place, of 0..255; that one waits for a GPU at every batch."""

    def __init__(self, mean: Triple, std: Triple) -> None:
        super().__init__()
        self.mean, self.std = _scaled(mean), _scaled(std)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The batch's own memory, changed."""
        return inpt.sub_(sent(self.mean, inpt.device)).div_(sent(self.std, inpt.device))


def _scaled(values: Triple) -> Tensor:
    return torch.tensor([255 * value for value in values]).view(3, 1, 1)


def _geometry(recipe: Recipe) -> list[v2.Transform]:
    moved = (recipe.flip, recipe.vertical_flip, recipe.shift, recipe.rotate, recipe.scale)
    if any(moved) or recipe.shear or recipe.resized_crop < 1:
        return [RandomAffine(*moved, recipe.shear, recipe.resized_crop)]
    return []


def _colour(recipe: Recipe) -> list[v2.Transform]:
    steps: list[v2.Transform] = []
    if recipe.policy != "none":
        steps.append(RandomPolicy(recipe.policy, recipe.policy_operations, recipe.policy_magnitude))
    if recipe.brightness or recipe.contrast:
        steps.append(RandomLight(recipe.brightness, recipe.contrast))
    if recipe.saturation or recipe.hue:
        steps.append(RandomColour(recipe.saturation, recipe.hue))
    if recipe.blur:
        steps.append(RandomBlur(recipe.blur))
    if recipe.noise:
        steps.append(RandomNoise(recipe.noise))
    return steps


def _erasing(recipe: Recipe) -> list[v2.Transform]:
    """After normalisation: what is erased is 0, the mean colour."""
    steps: list[v2.Transform] = [RandomErasing(recipe.erase)] if recipe.erase else []
    return [*steps, RandomCutout(recipe.cutout)] if recipe.cutout else steps
