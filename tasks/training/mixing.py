"""MixUp and CutMix: two images of a batch become one, and their labels a soft target.

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; Yun et al. 2019, "CutMix:
Regularization Strategy to Train Strong Classifiers with Localizable Features".
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Beta

from tasks.schema import Recipe
from tasks.training.erasing import boxes
from tasks.training.to_device import sent

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(recipe: Recipe, classes: int) -> Mix:
    """What makes of (float N×3×S×S, int64 N) the mixed images and their targets, float N×C.

    With both turned off, images and labels stay as they are. Each image draws its own share
    from the CPU generator; its partner is the one before it in the (shuffled) batch.
    """
    if not (recipe.mixup or recipe.cutmix) or not recipe.mix_probability:
        return lambda images, labels: (images, labels)

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        kept = _kept(recipe, images)
        one_hot = F.one_hot(labels, classes).float()
        share = kept.mean((1, 2, 3))[:, None]
        return _between(images, kept), share * one_hot + (1 - share) * one_hot.roll(1, 0)

    return mix


def _between(images: Tensor, kept: Tensor) -> Tensor:
    partners = images.roll(1, 0)
    return partners + (images - partners) * kept


def _kept(recipe: Recipe, images: Tensor) -> Tensor:
    """How much of each pixel stays the image's own, float N×1×S×S."""
    count = len(images)
    cut = torch.rand(count) < (0.5 if recipe.mixup else 1.0) * bool(recipe.cutmix)
    blended, uncut = _shares(recipe.mixup, count), _shares(recipe.cutmix, count)
    # Who of two blended images is the partner is arbitrary: the larger share is the image's own,
    # or small alphas would show many images twice and as many not at all.
    share = torch.where(cut, uncut, torch.maximum(blended, 1 - blended))
    share = torch.where(torch.rand(count) < recipe.mix_probability, share, 1)
    sides = (1 - share).sqrt()[:, None].expand(-1, 2)
    outside = ~boxes(torch.rand(count, 2), sides, images)
    cut, share = (sent(drawn, images.device)[:, None, None, None] for drawn in (cut, share))
    return torch.where(cut, outside, share)


def _shares(alpha: float, count: int) -> Tensor:
    return Beta(alpha, alpha).sample((count,)) if alpha else torch.ones(count)
