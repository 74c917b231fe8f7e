"""Noise of sensors: each takes float32 N×3×S×S in 0..1 and gives the same, not clipped."""

import torch
from torch import Generator, Tensor


def gaussian_noise(images: Tensor, draw: Generator, deviation: float) -> Tensor:
    """Adds normal noise: a sensor in low light."""
    return images + deviation * torch.randn(images.shape, generator=draw)


def shot_noise(images: Tensor, draw: Generator, photons: float) -> Tensor:
    """Counts of photons: Poisson, with `photons` of them where a pixel is white."""
    return torch.poisson(images * photons, generator=draw) / photons


def impulse_noise(images: Tensor, draw: Generator, share: float) -> Tensor:
    """Salt and pepper: this share of values is 0 or 1, each as often."""
    chance = torch.rand(images.shape, generator=draw)
    noisy = torch.where(chance < share / 2, 0.0, images)
    return torch.where(chance > 1 - share / 2, 1.0, noisy)
