"""Slices and declared groups as rows, figures and sentences: report, model card and metrics."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.shards import Shards
from tasks.evaluation.groups import Compared, Triple
from tasks.evaluation.slices import Searched
from tasks.files import atomic_write
from tasks.metrics.classification import Floats, Ints, recall_by_class
from tasks.pages.render import data_uri, percent
from tasks.schema import Evaluate

_ENDS = ("value", "low", "high")
_PICTURES = 4  # mistakes shown of a slice
_TOP = 20  # slices in the report
_ALSO = 5  # others of the same images that are named
_SIDE = 64  # pixels of the pictures


@dataclass(frozen=True)
class SlicePicture:
    """A mistake, as a data URI, and what it is and was taken for."""

    source: str
    path: str
    actual: str
    predicted: str


@dataclass(frozen=True)
class SliceRow:
    """One slice; shares in 0..1, those with an interval as (value, low, high)."""

    name: str
    images: int
    mistakes: int
    accuracy: Triple
    loss: Triple
    """Accuracy of the rest less its own."""
    by_its_classes: float
    """The accuracy that its mix of classes explains: each image at its class's recall."""
    adjusted_p: float
    much_the_same: list[str]
    """Other slices that are worse and hold nearly the same images."""

    @property
    def rest(self) -> float:
        """Accuracy of the images outside it."""
        return self.accuracy[0] + self.loss[0]

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json."""
        return {
            "name": self.name,
            "images": self.images,
            "accuracy": dict(zip(_ENDS, self.accuracy, strict=True)),
            "accuracy_lost": dict(zip(_ENDS, self.loss, strict=True)),
            "accuracy_by_its_classes": self.by_its_classes,
            "adjusted_p": self.adjusted_p,
            "much_the_same": self.much_the_same,
        }


@dataclass(frozen=True)
class SlicesFigures:
    """What was found among the slices of at least `min_images` images, and in the groups."""

    searched: Searched
    min_images: int
    confidence: float
    found: list[SliceRow]
    """Those that do worse, the largest sure loss first."""
    worst: SliceRow | None
    pictures: list[list[SlicePicture]]
    """Mistakes of the first of `found`."""
    groups: list[Compared]

    @property
    def attributes(self) -> list[str]:
        """Those that slices were made of."""
        return list(dict.fromkeys(factor.name for factor in self.searched.factors))

    @property
    def shown(self) -> list[tuple[SliceRow, list[SlicePicture]]]:
        """The first of `found` with their mistakes."""
        return list(zip(self.found, self.pictures, strict=False))

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json."""
        chance = self.searched.lowest_by_chance
        return {
            "min_images": self.min_images,
            "attributes": self.attributes,
            "looked_at": len(self.searched),
            "interval_level": self.searched.level,
            "worst": self.worst and self.worst.as_metrics(),
            "lowest_by_chance": chance if np.isfinite(chance) else None,
            "found": [row.as_metrics() for row in self.found],
            "groups": {one.attribute: one.as_metrics() for one in self.groups},
        }

    def headlines(self) -> dict[str, float]:
        """The figures that training runs are compared by."""
        if self.worst is None:
            return {}
        return {
            "test_worst_slice_accuracy": self.worst.accuracy[0],
            "test_worse_slices": len(self.found),
        }

    def sentence(self) -> str:
        """What a reader must know, in two or three sentences."""
        if self.worst is None:
            return (
                f"No attribute parts the test images into slices of {self.min_images} or more, so "
                "none was searched for mistakes."
            )
        looked = f"{len(self.searched):,} slices of {self.min_images} or more test images"
        if self.found:
            first = self.found[0]
            several = len(self.found) > 1
            said = (
                f"Of {looked}, {len(self.found)} {'do' if several else 'does'} worse than the "
                f"others by more than chance{', above all' if several else ','} {first.name}: "
                f"{percent(first.accuracy[0])} of {first.images:,} images are right, "
                f"{percent(first.rest)} of the others."
            )
        else:
            said = f"Of {looked}, none does worse than the others by more than chance."
        return (
            f"{said} The lowest accuracy is {percent(self.worst.accuracy[0])} "
            f"({self.worst.name}, {self.worst.images:,} images); with as many mistakes in random "
            f"places it would be about {percent(self.searched.lowest_by_chance)}."
        )


def slices_figures(
    searched: Searched, groups: list[Compared], shards: Shards, predicted: Ints, params: Evaluate
) -> SlicesFigures:
    """The figures of what was searched on the test split, `predicted` being the answers [N]."""
    test = shards.split("test")
    recall = recall_by_class(predicted, test.labels, len(shards.classes))[test.labels]
    found, worst = searched.found(params.confidence), searched.worst()

    def pictures(index: int) -> list[SlicePicture]:
        rows = np.flatnonzero(searched.members(index) & (predicted != test.labels))
        return [
            SlicePicture(
                data_uri(test.images[row], tiny=_SIDE, side=_SIDE),
                test.paths[row],
                shards.classes[test.labels[row]],
                shards.classes[predicted[row]],
            )
            for row in rows[:: max(1, -(-len(rows) // _PICTURES))]
        ]

    return SlicesFigures(
        searched=searched,
        min_images=params.slices.min_images,
        confidence=params.confidence,
        found=[_row(searched, index, recall, params.confidence) for index in found],
        worst=None if worst is None else _row(searched, worst, recall, params.confidence),
        pictures=[pictures(index) for index in found[:_TOP]],
        groups=groups,
    )


def write_slices(path: Path, figures: SlicesFigures) -> None:
    """Every slice that was looked at as CSV, the lowest p first, then the largest loss."""
    searched = figures.searched
    header = ["slice", "images", "mistakes", "accuracy", "accuracy_low", "accuracy_high"]
    header += ["accuracy_lost", "accuracy_lost_low", "accuracy_lost_high", "adjusted_p"]
    columns = [searched.images, searched.mistakes, searched.accuracy, searched.low, searched.high]
    columns += [*searched.loss, searched.adjusted]
    with atomic_write(path, "w") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(header)
        for index in np.lexsort((-searched.loss[0], searched.adjusted)):
            rows.writerow([searched.name(index), *(column[index] for column in columns)])


def _row(searched: Searched, index: int, recall: Floats, confidence: float) -> SliceRow:
    """`recall` is that of each image's class, [N]."""
    loss, low, high = (float(end[index]) for end in searched.loss)
    ends = (searched.accuracy[index], searched.low[index], searched.high[index])
    return SliceRow(
        name=searched.name(index),
        images=int(searched.images[index]),
        mistakes=int(searched.mistakes[index]),
        accuracy=(float(ends[0]), float(ends[1]), float(ends[2])),
        loss=(loss, low, high),
        by_its_classes=float(recall[searched.members(index)].mean()),
        adjusted_p=float(searched.adjusted[index]),
        much_the_same=[searched.name(k) for k in searched.much_the_same(index, confidence)[:_ALSO]],
    )
