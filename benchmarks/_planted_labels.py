"""Wrong labels planted in real images, and the probabilities of models that never saw them."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tasks.data.shards import Shards, open_shards, write_index
from tasks.evaluation.fold_training import cross_validate
from tasks.params import Settings
from tasks.schema import Train
from tasks.tracking import NoLog

Kind = Literal["symmetric", "pair"]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Planted:
    """Out-of-fold probabilities float32 N×C, the labels given, and which of them are wrong."""

    probabilities: npt.NDArray[np.float32]
    labels: Labels
    wrong: npt.NDArray[np.bool_]


def with_wrong_labels(
    labels: Labels, classes: int, rate: float, kind: Kind, generator: np.random.Generator
) -> Labels:
    """The labels with a share of `rate` replaced: by any other class, or by the next one."""
    chosen = generator.permutation(len(labels))[: round(rate * len(labels))]
    steps = generator.integers(1, classes, len(chosen)) if kind == "symmetric" else 1
    changed = labels.copy()
    changed[chosen] = (labels[chosen] + steps) % classes
    return changed


def planted(
    clean: Shards, config: Train, rate: float, kind: Kind, seed: int, scratch: Path
) -> Planted:
    """Wrong labels outside the test split, and a cross-validation on them as the step does it."""
    target = scratch / f"{kind}-{rate:g}-{seed}"
    shutil.copytree(clean.path, target)
    generator, truth = np.random.default_rng(seed), []
    for name in ("train", "validation"):
        labels = clean.split(name).labels
        truth.append(labels)
        changed = with_wrong_labels(labels, len(clean.classes), rate, kind, generator)
        np.save(target / f"{name}_labels.npy", changed)
    write_index(target, clean.classes, clean.contract)
    settings = Settings(home=target / "home")
    trained = cross_validate(config, open_shards(target), 0.95, settings, "folds", NoLog()).trained
    labels = np.concatenate([one.fold.held_out.labels for one in trained])
    rows = np.concatenate([one.fold.rows for one in trained])
    probabilities = np.concatenate([one.probabilities for one in trained])
    return Planted(probabilities, labels, labels != np.concatenate(truth)[rows])
