"""Explains test images by every method, and tests the maps.

Methods with gradients explain the fp32 network of PyTorch, since a deployed graph has none; LIME
and occlusion only ask for answers and explain the deployed graph itself.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasks.data.shards import Shards
from tasks.evaluation.candidates import Candidates
from tasks.evaluation.explanation.attribution import (
    GRADIENT,
    STEPS,
    Absence,
    Explained,
    attribution,
    drawn_from,
    last_stage,
)
from tasks.evaluation.explanation.choose import choose
from tasks.evaluation.explanation.faithfulness import deletion_insertion, likeness
from tasks.evaluation.explanation.figures import (
    Answers,
    ExplanationFigures,
    Maps,
    explanation_figures,
)
from tasks.evaluation.pixel_networks import (
    MODEL,
    GraphClassifier,
    PixelClassifier,
    as_pixels,
    fp32_network,
    shuffled,
)
from tasks.metrics.classification import Floats
from tasks.progress import Progress
from tasks.schema import Attribution, Evaluate
from tasks.training.models import build
from tasks.training.threads import suited_threads

_BATCH = 32  # about as many changed copies of an image are asked at once


@dataclass(frozen=True)
class _Pair:
    """A network, and one of the same shape that knows nothing."""

    name: str
    trained: Explained
    random: Explained


def measure_explanation(
    shards: Shards,
    candidates: Candidates,
    answers: Answers,
    params: Evaluate,
    folder: Path = MODEL,
) -> ExplanationFigures:
    """Explain what the deployed model answers to test images, for its own best class.

    Raises TrainingError when the model in `folder` is not there or of other images.
    """
    settings, test = params.explanation, shards.split("test")
    network = fp32_network(shards, folder)
    choices = choose(answers.probabilities, answers.labels, settings.images)
    images = np.stack([test.images[choice.row] for choice in choices])
    pixels, absence = as_pixels(images), _absence(network, shards, params.seed)
    targets = [int(answers.probabilities[choice.row].argmax()) for choice in choices]
    pairs = {"fp32": _fp32(network, params.seed), "graph": _deployed(candidates, params.seed)}
    maps = []
    with (
        suited_threads(network.model, network.spec.size, _BATCH),
        Progress("images explained", len(settings.methods) * len(choices)) as progress,
    ):
        for method in settings.methods:
            pair = pairs["fp32" if method in GRADIENT else "graph"]
            if method != "grad_cam" or pair.trained.stage is not None:
                maps.append(_maps(method, pair, pixels, targets, absence, params.seed, progress))
    with torch.inference_mode():
        fp32_classes = network(pixels).argmax(1).numpy()
    return explanation_figures(shards, choices, images, answers, fp32_classes, maps, params)


def _maps(
    method: Attribution,
    pair: _Pair,
    pixels: Tensor,
    targets: list[int],
    absence: Absence,
    seed: int,
    progress: Progress,
) -> Maps:
    found: list[Floats] = []
    areas: list[Floats] = []
    likenesses: list[float] = []
    for row, target in enumerate(targets):
        image, drawn = pixels[row : row + 1], seed + row
        one = attribution(method, pair.trained, image, target, absence, drawn)
        blind = attribution(method, pair.random, image, target, absence, drawn)
        found.append(one)
        likenesses.append(likeness(one, blind))
        areas.append(deletion_insertion(pair.trained.logits, image, target, one, absence, drawn))
        progress.add(1)
    return Maps(method, pair.name, np.stack(found), np.stack(areas), np.array(likenesses))


def _fp32(network: PixelClassifier, seed: int) -> _Pair:
    with drawn_from(seed):
        blind = PixelClassifier(build(network.spec), network.spec)
    return _Pair(
        "fp32",
        Explained(network, last_stage(network)),
        Explained(blind, last_stage(blind)),
    )


def _deployed(candidates: Candidates, seed: int) -> _Pair:
    path, runtime = candidates.file(candidates.chosen), candidates.named(candidates.chosen).runtime
    return _Pair(
        candidates.chosen,
        Explained(GraphClassifier(path, runtime)),
        Explained(GraphClassifier(shuffled(path, seed), runtime)),
    )


def _absence(network: PixelClassifier, shards: Shards, seed: int) -> Absence:
    train = shards.split("train")
    drawn = np.random.default_rng(seed).choice(len(train), min(STEPS, len(train)), replace=False)
    background = np.stack([train.images[row] for row in np.sort(drawn)])
    return Absence(network.mean.round(), as_pixels(background))
