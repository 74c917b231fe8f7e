"""Strangeness as rows, figures and sentences, for the report, the model card and the metrics."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.data.shards import Shards
from tasks.evaluation.ood import Strangeness
from tasks.pages.render import data_uri, percent
from tasks.schema import OodScore

TITLES: dict[OodScore, str] = {
    "energy": "energy",
    "max_softmax": "maximum softmax",
    "mahalanobis": "Mahalanobis",
    "relative_mahalanobis": "relative Mahalanobis",
}
_SAMPLE = 64  # pixels of the pictures
_STRANGEST = 7


@dataclass(frozen=True)
class KindRow:
    """One kind of strange images: AUROC by score; of the deployed score what it misses."""

    name: str
    areas: list[float]
    missed: float
    noticed: float
    sample: str


@dataclass(frozen=True)
class Strangest:
    """A test image with a high score, as a data URI."""

    source: str
    path: str
    label: str
    score: float
    strange: bool


@dataclass(frozen=True)
class OodFigures:
    """What the report shows; shares in 0..1."""

    found: Strangeness
    keep: float
    titles: list[str]
    """Of the scores, in the order of every row's areas."""
    at: int
    """Which of them is deployed."""
    means: list[float]
    rows: list[KindRow]
    strangest: list[Strangest]

    @property
    def title(self) -> str:
        """The name of the deployed score."""
        return self.titles[self.at]

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json."""
        kinds = self.found.kinds
        names = list(self.found.chosen.areas)
        return {
            "score": self.found.chosen.score.name,
            "strange_from": self.found.strange_from,
            "test_images_called_strange": self.found.called,
            "validation_mean_auroc": self.found.chosen.areas,
            "mean_auroc": dict(zip(names, self.means, strict=True)),
            "auroc": {kind: found.areas for kind, found in kinds.items()},
            "false_positive_rate_at_95_recall": {k: found.missed for k, found in kinds.items()},
            "called_strange": {kind: found.noticed for kind, found in kinds.items()},
        }

    def sentence(self) -> str:
        """What a reader must know, in two sentences."""
        told = ", ".join(f"{row.name} {percent(row.noticed, 0)}" for row in self.rows)
        return (
            f"By its {self.title} score it calls {percent(self.found.called)} of the test images "
            f"strange, and of images that no class is of: {told}. The mean AUROC of the score on "
            f"these is {self.means[self.at]:.3f}."
        )


def ood_figures(found: Strangeness, shards: Shards, keep: float) -> OodFigures:
    """The figures, and pictures of the test images with the highest scores."""
    names = list(found.chosen.areas)
    rows = [
        KindRow(
            name=kind,
            areas=[one.areas[name] for name in names],
            missed=one.missed[found.chosen.score.name],
            noticed=one.noticed,
            sample=data_uri(one.sample, tiny=_SAMPLE, side=_SAMPLE),
        )
        for kind, one in found.kinds.items()
    ]
    return OodFigures(
        found=found,
        keep=keep,
        titles=[TITLES[name] for name in names],
        at=names.index(found.chosen.score.name),
        means=np.mean([row.areas for row in rows], axis=0).tolist(),
        rows=rows,
        strangest=_strangest(found, shards),
    )


def _strangest(found: Strangeness, shards: Shards) -> list[Strangest]:
    split = shards.split("test")
    return [
        Strangest(
            source=data_uri(split.images[i]),
            path=split.paths[i],
            label=shards.classes[split.labels[i]],
            score=float(found.test[i]),
            strange=bool(found.test[i] >= found.strange_from),
        )
        for i in np.argsort(-found.test, kind="stable")[:_STRANGEST]
    ]
