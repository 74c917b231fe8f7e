"""Snow, frost, fog and bright light: float32 N×3×S×S in 0..1 to the same.

The published frost lays one of five photographs of frozen panes over the image. We have none to
give away: a pane is drawn, with the published weights, as bright, as uneven and as grainy as those.
"""

import torch
from torch import Generator, Tensor

from tasks.evaluation.corruptions.blur import zoomed
from tasks.evaluation.corruptions.fractal import plasma
from tasks.evaluation.corruptions.kernels import convolved, streaks

_GREY = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
_ICE = torch.tensor([-0.05, 0.0, 0.04]).view(1, 3, 1, 1)  # a little blue
_DARKEST, _PALER = 0.45, 0.3  # a pane's brightness is the first and up to the second more
_NEEDLES, _FINENESS = 0.45, 1.2  # contrast of the crystals, and the decay of the plasma they are in


def snow(
    images: Tensor,
    draw: Generator,
    amount: float,
    spread: float,
    flake: float,
    threshold: float,
    radius: int,
    sigma: float,
    visibility: float,
) -> Tensor:
    """Flakes that fall aslant, before an image that is paler the lower `visibility` is."""
    count, _, side, _ = images.shape
    noise = amount + spread * torch.randn(count, 1, side, side, generator=draw)
    flakes = zoomed(noise, flake)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    angles = -90 + 45 * (2 * torch.rand(count, generator=draw) - 1)
    falling = convolved(flakes, streaks(angles, radius, sigma), "replicate").clamp(0, 1)
    pale = torch.maximum(images, 1.5 * (images * _GREY).sum(1, keepdim=True) + 0.5)
    shown = visibility * images + (1 - visibility) * pale
    return shown + falling + falling.rot90(2, (2, 3))


def frost(images: Tensor, draw: Generator, image_weight: float, ice_weight: float) -> Tensor:
    """A frozen pane over the image."""
    count, _, side, _ = images.shape
    crests = 1 - (2 * plasma(count, side, _FINENESS, draw) - 1).abs()  # bright along its middle
    crests = crests**2 - (crests**2).mean((1, 2), keepdim=True)
    pale = _DARKEST + _PALER * torch.rand(count, 1, 1, 1, generator=draw)
    pane = (pale + _NEEDLES * crests.unsqueeze(1) + _ICE).clamp(0, 1)
    return image_weight * images + ice_weight * pane


def fog(images: Tensor, draw: Generator, thickness: float, decay: float) -> Tensor:
    """Banks of fog (a plasma fractal): an image with less contrast the thicker they are."""
    clouds = plasma(len(images), images.shape[-1], decay, draw).unsqueeze(1)
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + thickness * clouds) * brightest / (brightest + thickness)


def brightness(images: Tensor, draw: Generator, more: float) -> Tensor:
    """Brighter by that much, hue and saturation as they were: the value of HSV."""
    value = images.amax(1, keepdim=True)
    wanted = (value + more).clamp(0, 1)
    return torch.where(value > 0, images * (wanted / value.clamp(min=1e-6)), wanted)
