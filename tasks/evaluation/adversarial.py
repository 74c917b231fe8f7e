"""How little must change for an answer to change: test images made to be misjudged, by captum.

The fp32 network, whose gradients are known, is attacked; the deployed graph then answers the same
changed images, which are rounded to whole levels, as a file would hold them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.data.shards import ShardSplit
from tasks.evaluation.attacked import ATTACKS, PGD_STEPS, Attack, Attacked
from tasks.evaluation.explanation.attribution import drawn_from
from tasks.evaluation.pixel_networks import GraphClassifier, PixelClassifier, as_pixels
from tasks.evaluation.robustness import chosen_rows
from tasks.metrics.classification import Ints
from tasks.progress import Progress
from tasks.schema import Adversarial
from tasks.training.threads import suited_threads

_REACH = 2.5  # all steps together go so many times as far as allowed (Madry et al. 2018)
_BATCH = 32
_SEARCHED = 50  # right answers whose smallest change is searched for, one image at a time
Perturb = Callable[..., Tensor]


def measure_adversarial(
    test: ShardSplit,
    network: PixelClassifier,
    deployed: GraphClassifier,
    params: Adversarial,
    seed: int,
) -> Attacked:
    """Attack `network` on up to `params.images` of the test split, at each of `params.levels`."""
    rows = chosen_rows(test.labels, params.images, seed)
    images, labels = as_pixels(np.asarray(test.images[rows])), np.asarray(test.labels)[rows]
    targets = torch.from_numpy(labels.astype(np.int64))
    shape = (len(params.levels), len(rows))
    fp32: dict[Attack, Ints] = {name: np.empty(shape, np.int64) for name in ATTACKS}
    transferred: dict[Attack, Ints] = {name: np.empty(shape, np.int64) for name in ATTACKS}
    progress = Progress("images attacked", len(rows) * 2 * len(params.levels))
    threads = suited_threads(network.model, network.spec.size, _BATCH)
    with progress, threads, drawn_from(seed):
        for name in ATTACKS:
            for at, level in enumerate(params.levels):
                changed = attacked(network, name, images, targets, level)
                fp32[name][at] = _classes(network, changed)
                transferred[name][at] = _classes(deployed, changed)
                progress.add(len(rows))
        clean = _classes(network, images)
        right = np.flatnonzero(clean == labels)[:_SEARCHED]
        smallest = _smallest(network, images[right], targets[right], params.levels[-1])
    return Attacked(
        rows=rows,
        labels=labels,
        levels=params.levels,
        fp32_clean=clean,
        deployed_clean=_classes(deployed, images),
        fp32=fp32,
        deployed=transferred,
        smallest=smallest,
    )


def attacked(
    network: PixelClassifier, attack: Attack, images: Tensor, targets: Tensor, level: int
) -> Tensor:
    """Images float N×3×S×S, whole levels in 0..255, changed by at most `level`; whole levels too.

    FGSM (Goodfellow et al. 2015), or PGD from a random start (Madry et al. 2018); `targets` are
    the true classes, int64 [N].
    """
    perturb = _perturb(network, attack)
    parts = zip(torch.split(images, _BATCH), torch.split(targets, _BATCH), strict=True)
    return torch.cat([perturb(part, level, target=labels) for part, labels in parts])


def _perturb(network: PixelClassifier, attack: Attack) -> Perturb:
    from captum.robust import FGSM, PGD

    # Captum takes gradients below 1e-6 for none; per level of 255 they are small without being it.
    if attack == "fgsm":
        fgsm = FGSM(network, _margin, 0, 255)
        fgsm.zero_thresh = 0
        return partial(_fgsm, fgsm)
    pgd = PGD(network, _margin, 0, 255)
    pgd.fgsm.zero_thresh = 0
    return partial(_pgd, pgd)


def _fgsm(method: Any, images: Tensor, level: int, target: Tensor) -> Tensor:
    changed: Tensor = method.perturb(images, level, target)
    return changed.detach().round()


def _pgd(method: Any, images: Tensor, level: int, target: Tensor) -> Tensor:
    step = _REACH * level / PGD_STEPS
    changed: Tensor = method.perturb(images, level, step, PGD_STEPS, target, random_start=True)
    return changed.round()


def _margin(logits: Tensor, targets: Tensor) -> Tensor:
    """By how much the best wrong class leads, [N] (Carlini & Wagner 2017).

    Unlike that of the cross-entropy its gradient does not vanish where the network is sure, which
    would pass for strength (Carlini & Wagner call it masking).
    """
    wrong = torch.nn.functional.one_hot(targets, logits.shape[1]).bool()
    return logits.masked_fill(wrong, -torch.inf).amax(1) - logits[wrong]


def _smallest(network: PixelClassifier, images: Tensor, targets: Tensor, most: int) -> Ints:
    """By bisection, the least level at which PGD has an image answered wrong; most + 1: none."""
    from captum.robust import MinParamPerturbation

    search = MinParamPerturbation(
        network,
        attack=_perturb(network, "pgd"),
        arg_name="level",
        arg_min=1,
        arg_max=max(most + 1, 3),  # its end is not searched, and must be more than a step away
        arg_step=1,
        mode="binary",
    )
    found = []
    for image, label in zip(torch.split(images, 1), torch.split(targets, 1), strict=True):
        _, level = search.evaluate(image, target=label, attack_kwargs={"target": label})
        found.append(most + 1 if level is None else min(level, most + 1))
    return np.array(found, np.int64)


def _classes(logits: Callable[[Tensor], Tensor], images: Tensor) -> Ints:
    with torch.inference_mode():
        found = [logits(part).argmax(1) for part in torch.split(images, _BATCH)]
    return np.asarray(torch.cat(found).numpy(), np.int64)
