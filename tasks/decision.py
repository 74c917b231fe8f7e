"""What a model says of an image: its answer, as the server, the edge runner and MLflow give it.

Takes a bundle's outputs and thresholds. Needs numpy only, and no other file: the edge folder and
the MLflow model carry this one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Decision:
    """When the model is sure enough to answer, and which classes it would not rule out."""

    # For pydantic, which reads this of bundle.json: a threshold that it does not know is an error.
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    abstain_below: float | None
    """Probability of the best class below which the model abstains; None: it never does."""
    set_from: float
    """Probability from which a class is in the prediction set, in which the best always is."""
    set_coverage: float
    """How often the sets are to hold the true class."""
    strange_from: float | None = None
    """Score from which an image is unlike those of training; None: it is never said."""

    def answers(
        self, classes: Sequence[str], probabilities: Floats, ood_scores: Floats | None = None
    ) -> list[dict[str, Any]]:
        """The answer to each of N images: probabilities float32 N×C, scores float32 [N] or none."""
        scores = [None] * len(probabilities) if ood_scores is None else ood_scores.tolist()
        pairs = zip(probabilities, scores, strict=True)
        return [self.answer(classes, row, score) for row, score in pairs]

    def answer(
        self, classes: Sequence[str], probabilities: Floats, ood_score: float | None
    ) -> dict[str, Any]:
        """All that is said of an image with these probabilities, float32 [C], and this score."""
        best = int(probabilities.argmax())
        return {
            "label": classes[best],
            "probability": float(probabilities[best]),
            "probabilities": dict(zip(classes, probabilities.tolist(), strict=True)),
            "abstain": self.abstains(probabilities),
            "prediction_set": [classes[c] for c in self.prediction_set(probabilities)],
            "ood_score": ood_score,
            "strange": self.strange(ood_score),
        }

    def abstains(self, probabilities: Floats) -> bool:
        """Whether an image with these probabilities, [C], should be looked at by a person."""
        return self.abstain_below is not None and float(probabilities.max()) < self.abstain_below

    def strange(self, ood_score: float | None) -> bool:
        """Whether an image with this score is unlike the images that the model was trained on."""
        if self.strange_from is None or ood_score is None:
            return False
        return ood_score >= self.strange_from

    def prediction_set(self, probabilities: Floats) -> list[int]:
        """The classes that are not ruled out, the most probable first."""
        order = np.argsort(-probabilities, kind="stable")
        return [int(c) for c in order if c == order[0] or probabilities[c] >= self.set_from]


# Of bundles from before there were decisions: the best class alone, whatever its probability.
ALWAYS_ANSWERS = Decision(abstain_below=None, set_from=float("inf"), set_coverage=0.0)


def read_decision(values: Mapping[str, Any] | None) -> Decision:
    """The decision of bundle.json or model.json; of a bundle without one `ALWAYS_ANSWERS`."""
    return ALWAYS_ANSWERS if values is None else Decision(**values)
