"""Whether the deployed graph notices images that are unlike those of training.

The score is chosen on strange images made of validation images, and measured on others, made of
test images: of the user's own folder every other one is for either.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.data.shards import Shards, ShardSplit
from tasks.evaluation.ood_scores import Score, fit_scores
from tasks.evaluation.robustness import chosen_rows
from tasks.evaluation.strange_images import FOLDER, MOST, folder_images, strange_images
from tasks.metrics.classification import Ints
from tasks.metrics.strangeness import area, missed, threshold
from tasks.pixels import Images, Pixels
from tasks.runtime import Floats
from tasks.schema import Evaluate, OodScore

Run = Callable[[Images], list[Floats]]  # images → logits N×C and embedding N×D
_TRAINING = 5000  # images of the training split, at most, that the Gaussians are of


@dataclass(frozen=True)
class Kind:
    """One kind of strange images, by score: AUROC, and the share missed at 95 % recall."""

    areas: dict[OodScore, float]
    missed: dict[OodScore, float]
    noticed: float
    """Share of the images that the deployed threshold calls strange."""
    sample: Pixels


@dataclass(frozen=True)
class Chosen:
    """The score that is folded into the graph, and what it was chosen by."""

    score: Score
    scores: list[Score]
    areas: dict[OodScore, float]
    """Of each score the mean AUROC on strange images made of validation images."""


@dataclass(frozen=True)
class Strangeness:
    """How the deployed score tells strange images from test images."""

    chosen: Chosen
    strange_from: float
    test: Floats
    """The deployed graph's score of each test image, float32 [N]."""
    kinds: dict[str, Kind]

    @property
    def called(self) -> float:
        """Share of the test images that are called strange."""
        return float((self.test >= self.strange_from).mean())


def choose_score(shards: Shards, run: Run, validation: list[Floats], params: Evaluate) -> Chosen:
    """Fit the scores to training images as the deployed graph sees them, and choose one.

    `run` is the candidate, `validation` its logits and embedding of the validation images.
    """
    scores = fit_scores(*_training(shards, run, params.seed))
    split = shards.split("validation")
    found: dict[OodScore, list[float]] = {score.name: [] for score in scores}
    for _, images in _strange(shards, split, params, half=0):
        strange = run(images)
        for score in scores:
            found[score.name].append(area(score(*validation), score(*strange)))
    areas = {name: float(np.mean(values)) for name, values in found.items()}
    # Of scores that are equal to three digits the first, which costs the graph least.
    best = max(areas, key=lambda name: round(areas[name], 3))
    name = best if params.ood.score == "auto" else params.ood.score
    return Chosen(next(score for score in scores if score.name == name), scores, areas)


def strange_from(validation: Floats, params: Evaluate) -> float:
    """The deployed threshold, from the deployed graph's scores of validation images, [N]."""
    return threshold(validation, params.ood.keep)


def measure_strangeness(
    chosen: Chosen, shards: Shards, run: Run, test: list[Floats], limit: float, params: Evaluate
) -> Strangeness:
    """Every score on strange images made of test images.

    `run` is the candidate; `test` its logits and embedding of the test images, then the deployed
    graph's score of them; `limit` is the deployed threshold.
    """
    logits, embedding, deployed = test
    usual = {score.name: score(logits, embedding) for score in chosen.scores}
    kinds = {}
    for kind, images in _strange(shards, shards.split("test"), params, half=1):
        outputs = run(images)
        strange = {score.name: score(*outputs) for score in chosen.scores}
        kinds[kind] = Kind(
            areas={name: area(usual[name], values) for name, values in strange.items()},
            missed={name: missed(usual[name], values) for name, values in strange.items()},
            noticed=float((strange[chosen.score.name] >= limit).mean()),
            sample=images[0],
        )
    return Strangeness(chosen, limit, deployed, kinds)


def _training(shards: Shards, run: Run, seed: int) -> tuple[Floats, Ints]:
    """Embeddings and labels of training images, of each its middle."""
    split, size = shards.split("train"), shards.contract.size
    rows = chosen_rows(split.labels, _TRAINING, seed)
    parts = []
    for at in range(0, len(rows), MOST):
        images = np.asarray(split.images[rows[at : at + MOST]])
        edge = (images.shape[1] - size) // 2
        parts.append(run(images[:, edge : edge + size, edge : edge + size])[1])
    return np.concatenate(parts), np.asarray(split.labels)[rows]


def _strange(
    shards: Shards, split: ShardSplit, params: Evaluate, half: int
) -> Iterator[tuple[str, Pixels]]:
    """Every kind, made of images of a split; of the user's folder one half."""
    rows = chosen_rows(split.labels, MOST, params.seed)
    usual = np.asarray(split.images[rows])
    yield from strange_images(usual, params.seed + half, shards.contract.colour == "grey")
    if params.ood.images is not None:
        yield FOLDER, folder_images(Path(params.ood.images), shards.contract)[half::2]
