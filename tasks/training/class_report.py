"""What training did for each class: how it was shown and weighted, and how well it is known."""

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.files import atomic_write
from tasks.schema import Imbalance
from tasks.training.losses import class_counts, class_weights
from tasks.training.sampling import expected_counts

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit


@dataclass(frozen=True)
class ClassRow:
    """One class: images, what the remedy does with them, and scores on validation (0..1)."""

    label: str
    train_images: int
    shown_per_epoch: float
    loss_weight: float
    validation_images: int
    recall: float
    precision: float
    f1: float
    remedy: str


def class_report(
    classes: tuple[str, ...],
    config: Imbalance,
    train: "ShardSplit",
    validation: "ShardSplit",
    predicted: npt.NDArray[np.int64],
) -> list[ClassRow]:
    """A row per class; `predicted` (N) are the classes given to the validation images.

    A score without anything to divide by is 0: recall of a class without validation images,
    precision of one that was never given.
    """
    count = len(classes)
    shown = expected_counts(train.labels, config.sampling, train.weights)
    train_images = class_counts(train.labels, count)
    weights = class_weights(config, train_images)
    shown_per_class = np.bincount(train.labels, shown, count)
    there, given = class_counts(validation.labels, count), class_counts(predicted, count)
    hits = class_counts(validation.labels[predicted == validation.labels], count)
    recall, precision = hits / np.maximum(there, 1), hits / np.maximum(given, 1)
    f1 = 2 * hits / np.maximum(there + given, 1)
    return [
        ClassRow(
            label=label,
            train_images=int(train_images[c]),
            shown_per_epoch=round(float(shown_per_class[c]), 1),
            loss_weight=round(float(weights[c]), 4),
            validation_images=int(there[c]),
            recall=float(recall[c]),
            precision=float(precision[c]),
            f1=float(f1[c]),
            remedy=config.remedy,
        )
        for c, label in enumerate(classes)
    ]


def summary(rows: list[ClassRow]) -> dict[str, float]:
    """Macro-F1 and the recall of the worst class, over the classes that validation has."""
    present = [row for row in rows if row.validation_images]
    return {
        "validation_macro_f1": float(np.mean([row.f1 for row in present])),
        "validation_worst_recall": min(row.recall for row in present),
    }


def write_class_report(path: Path, rows: list[ClassRow]) -> None:
    """The rows as CSV."""
    with atomic_write(path, "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(field.name for field in fields(ClassRow))
        table.writerows(asdict(row).values() for row in rows)
