"""Answers of real models on images that they never saw, as a population of known truth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks._cifar import class_folders, some_images
from benchmarks._shards import proposed, shards_of
from tasks.data.shards import Shards
from tasks.data.sources.folders import find_files
from tasks.evaluation.corruptions.names import PUBLISHED, SEVERITIES
from tasks.evaluation.corruptions.suite import corrupt
from tasks.files import atomic_write
from tasks.schema import Params
from tasks.training.inference import predict
from tasks.training.loop import fit
from tasks.training.models import Classifier, ModelSpec, build, channel_moments, spec_for

TRAINING, VALIDATION = 0.16, 0.04  # shares of the images; the rest is the population
Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """N images: their labels and what two models say that never saw them."""

    labels: Ints
    probabilities: Reals
    """Of the model, N×C."""
    other: Ints
    """The classes that a lesser model gives, [N]."""
    corrupted: Reals
    """Of M of the images, the share of wrong answers under the published corruptions, [M]."""

    @property
    def predicted(self) -> Ints:
        """The classes that the model gives, int64 [N]."""
        return np.asarray(self.probabilities.argmax(1))


def digits() -> Population:
    """scikit-learn's digits by a perceptron and by a small forest, out of five folds."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neural_network import MLPClassifier

    scans, labels = load_digits(return_X_y=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    perceptron = MLPClassifier((32,), max_iter=100, tol=1e-3, random_state=0)
    forest = RandomForestClassifier(20, random_state=0)
    probabilities, other = (
        cross_val_predict(model, scans / 16, labels, cv=folds, method="predict_proba")
        for model in (perceptron, forest)
    )
    return Population(labels, probabilities, other.argmax(1), np.zeros(0))


def cifar(data: Path, images: int, epochs: int, corrupted: int, scratch: Path) -> Population:
    """CIFAR-10's first `images` by a small network, and by one that learnt for half as long."""
    root = scratch / "images"
    some_images(class_folders(data, scratch / "all"), root, images)
    params = proposed(root)
    split = {"validation": VALIDATION, "test": 1 - VALIDATION - TRAINING}
    params = params.model_copy(update={"split": params.split.model_copy(update=split)})
    shards = shards_of(find_files(root), root, params, scratch / "shards")
    model, spec = _trained(params, shards, epochs)
    shorter, _ = _trained(params, shards, max(1, epochs // 2))
    test = shards.split("test")
    logits = torch.from_numpy(predict(model, test.images, spec)).double()
    return Population(
        labels=np.asarray(test.labels, np.int64),
        probabilities=logits.softmax(1).numpy(),
        other=predict(shorter, test.images, spec).argmax(1),
        corrupted=_corrupted(model, spec, shards, corrupted),
    )


def keep(file: Path, found: Population) -> None:
    """Write it as one .npz file."""
    with atomic_write(file) as stream:
        np.savez_compressed(stream, allow_pickle=False, **vars(found))


def kept(file: Path) -> Population:
    """Read what `keep` wrote."""
    with np.load(file) as values:
        return Population(**values)


def _trained(params: Params, shards: Shards, epochs: int) -> tuple[Classifier, ModelSpec]:
    values = {"epochs": epochs, "patience": epochs, "device": "cpu", "width": 16}
    config = params.train.model_copy(update=values)
    train = shards.split("train")
    spec = spec_for(shards, config, channel_moments(train.images))
    torch.manual_seed(0)
    model = build(spec)
    fit(model, train, shards.split("validation"), spec, config)
    return model, spec


def _corrupted(model: Classifier, spec: ModelSpec, shards: Shards, most: int) -> Reals:
    test = shards.split("test")
    rows = np.random.default_rng(0).permutation(len(test))[:most]
    images, labels = np.asarray(test.images)[rows], np.asarray(test.labels)[rows]
    wrong = np.zeros(len(rows))
    for name in PUBLISHED:
        for severity in SEVERITIES:
            logits = predict(model, corrupt(images, name, severity, 0), spec)
            wrong += logits.argmax(1) != labels
    return wrong / (len(PUBLISHED) * len(SEVERITIES))
