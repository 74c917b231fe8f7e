"""Whether a map says something of the network: two tests of it.

Deletion and insertion (Petsiuk et al. 2018) ask whether the answer hangs on the pixels that the map
names; the sanity check (Adebayo et al. 2018) whether the map hangs on what the network learnt.
"""

import numpy as np
import torch
from torch import Tensor

from tasks.evaluation.explanation.attribution import Absence, Logits
from tasks.metrics.classification import Floats

STEPS = 10  # parts in which an image goes, and comes back
ELSEWHERE = 2  # random places that a map is moved to, to be compared with
_BLUR = 0.15  # of the side: the image that insertion starts from


def deletion_insertion(
    logits: Logits, image: Tensor, target: int, found: Floats, absence: Absence, seed: int
) -> Floats:
    """Areas under the probability of class `target`, float64 2×2, for float 1×3×S×S in 0..255.

    Columns: while the pixels that speak most for it are deleted, the first ones first, to the mean
    colour (the lower, the better), and while they are inserted into a blurred image (the higher,
    the better). Rows: by the map S×S, and by the same map moved to random places, on average: it
    is as coarse and as smooth, so that only where it points makes the difference.
    """
    random = np.random.default_rng(seed)
    maps = [found, *(_moved(found, random) for _ in range(ELSEWHERE))]
    blank = absence.colour.expand_as(image)
    starts = [(image, blank), (_blurred(image), image)]
    series = [
        torch.where(mask, after, before)
        for one in maps
        for before, after in starts
        for mask in _masks(one, random)
    ]
    with torch.inference_mode():
        probability = logits(torch.cat(series)).softmax(1)[:, target].double()
    curves = probability.reshape(len(maps), len(starts), STEPS + 1).numpy()
    areas = (curves[..., 1:] + curves[..., :-1]).mean(2) / 2
    return np.stack([areas[0], areas[1:].mean(0)])


def likeness(found: Floats, random: Floats) -> float:
    """Spearman's correlation of the absolute values of two maps, -1 to 1; 0 where one is flat."""
    from scipy.stats import spearmanr

    one, other = np.abs(found).ravel(), np.abs(random).ravel()
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)


def _moved(found: Floats, random: np.random.Generator) -> Floats:
    """The map rolled by a quarter to three quarters of the side, down and across."""
    side = len(found)
    low, high = max(1, side // 4), max(2, side - side // 4 + 1)
    return np.roll(found, random.integers(low, high, 2), axis=(0, 1))


def _masks(found: Floats, random: np.random.Generator) -> list[Tensor]:
    """Which pixels are changed after each step, bool 1×1×S×S, from none to all; ties by chance."""
    order = np.lexsort((random.random(found.size), -found.ravel()))
    rank = np.empty(found.size, np.int64)
    rank[order] = np.arange(found.size)
    ranks = torch.from_numpy(rank.reshape(1, 1, *found.shape))
    return [ranks < found.size * step / STEPS for step in range(STEPS + 1)]


def _blurred(image: Tensor) -> Tensor:
    from scipy.ndimage import gaussian_filter

    sigma = _BLUR * image.shape[2]
    return torch.from_numpy(gaussian_filter(image.numpy(), (0, 0, sigma, sigma), mode="nearest"))
