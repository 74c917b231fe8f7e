"""Explanations as figures, sentences and pictures, for the report, the card and the metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.data.shards import Shards
from tasks.evaluation.explanation.choose import Choice, Why
from tasks.evaluation.explanation.overlay import overlay
from tasks.metrics.bootstrap import mean_interval
from tasks.metrics.classification import Floats, Ints
from tasks.pages.render import data_uri
from tasks.schema import Attribution, Evaluate

TITLES: dict[Attribution, str] = {
    "grad_cam": "Grad-CAM",
    "integrated_gradients": "Integrated gradients",
    "shap": "SHAP (gradient)",
    "lime": "LIME",
    "occlusion": "Occlusion",
}
ALIKE = 0.5  # correlation with a random network's map from which a map tells too little of ours
_ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class Answers:
    """What the deployed model says of the N test images, N×C, and their labels [N]."""

    probabilities: Floats
    labels: Ints


@dataclass(frozen=True)
class Maps:
    """One method on K images."""

    method: Attribution
    network: str
    maps: Floats
    """K×S×S."""
    areas: Floats
    """Deletion and insertion, of the map and of the moved map, K×2×2."""
    likeness: Floats
    """Rank correlation with the map of a random network, [K]."""


@dataclass(frozen=True)
class Judged:
    """What the tests say of a method: means over images, some as (value, low, high)."""

    method: Attribution
    title: str
    network: str
    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float
    gain: tuple[float, float, float]
    """Insertion less deletion, more than by the map moved elsewhere."""
    sanity: tuple[float, float, float]

    @property
    def against(self) -> list[str]:
        """Why the maps of this method say nothing here; [] when they do."""
        found = []
        deletes = self.deletion < self.random_deletion
        inserts = self.insertion > self.random_insertion
        if not (deletes and inserts and self.gain[1] > 0):
            found.append("the answer hangs on what it names no more than on other places")
        if self.sanity[0] > ALIKE:
            found.append("a network of random weights gets much the same maps")
        return found

    @property
    def useful(self) -> bool:
        """Whether both tests are passed."""
        return not self.against


@dataclass(frozen=True)
class Picture:
    """An image beside its maps, all as data URIs; `maps` is in the order of the methods."""

    source: str
    path: str
    why: Why
    actual: str
    predicted: str
    confidence: float
    fp32: str
    maps: list[str]


@dataclass(frozen=True)
class ExplanationFigures:
    """The methods, what can be believed of them, and the pictures."""

    judged: list[Judged]
    skipped: list[str]
    """Titles of methods that this network cannot be asked by."""
    pictures: list[Picture]

    @property
    def agreeing(self) -> int:
        """Pictures on which fp32 gives the deployed model's answer."""
        return sum(one.fp32 == one.predicted for one in self.pictures)

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json: a key a method."""
        return {
            one.method: {
                "images": len(self.pictures),
                "network": one.network,
                "deletion": one.deletion,
                "insertion": one.insertion,
                "random_deletion": one.random_deletion,
                "random_insertion": one.random_insertion,
                "gain": dict(zip(_ENDS, one.gain, strict=True)),
                "sanity": dict(zip(_ENDS, one.sanity, strict=True)),
                "useful": one.useful,
            }
            for one in self.judged
        }

    def sentence(self) -> str:
        """Which methods say something, in a sentence or two."""
        useful = [one.title for one in self.judged if one.useful]
        useless = [one.title for one in self.judged if not one.useful]
        told = f"Of {len(self.pictures)} explained images the maps by {_listed(useful)} "
        told += "show what the answers hang on"
        if not useful:
            told = f"By no method do the maps of {len(self.pictures)} explained images"
            return f"{told} say what the answers hang on."
        return told + (f"; those by {_listed(useless)} say nothing." if useless else ".")


def explanation_figures(
    shards: Shards,
    choices: Sequence[Choice],
    images: np.ndarray,
    answers: Answers,
    fp32: Ints,
    maps: Sequence[Maps],
    params: Evaluate,
) -> ExplanationFigures:
    """The figures of `maps` of uint8 K×S×S×3 images; `fp32` has that network's classes [K]."""
    done = [one.method for one in maps]
    return ExplanationFigures(
        judged=[_judged(one, params) for one in maps],
        skipped=[TITLES[name] for name in params.explanation.methods if name not in done],
        pictures=[
            Picture(
                source=data_uri(images[at]),
                path=shards.split("test").paths[choice.row],
                why=choice.why,
                actual=shards.classes[answers.labels[choice.row]],
                predicted=shards.classes[answers.probabilities[choice.row].argmax()],
                confidence=float(answers.probabilities[choice.row].max()),
                fp32=shards.classes[fp32[at]],
                maps=[data_uri(overlay(images[at], one.maps[at])) for one in maps],
            )
            for at, choice in enumerate(choices)
        ],
    )


def _judged(found: Maps, params: Evaluate) -> Judged:
    settings = (params.resamples, params.confidence, params.seed)
    (deletion, insertion), (random_deletion, random_insertion) = found.areas.mean(0).tolist()
    score = found.areas[..., 1] - found.areas[..., 0]
    return Judged(
        method=found.method,
        title=TITLES[found.method],
        network=found.network,
        deletion=deletion,
        insertion=insertion,
        random_deletion=random_deletion,
        random_insertion=random_insertion,
        gain=mean_interval(score[:, 0] - score[:, 1], *settings),
        sanity=mean_interval(found.likeness, *settings),
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
