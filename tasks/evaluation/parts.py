"""The parts of the evidence that can be turned off, each beyond the test images as they are.

Takes what the core of the evidence has measured, gives a `Parts`: each part is None when
`evaluate` turns it off, and says what it found as metrics, figures and files.
"""

from dataclasses import dataclass, fields
from typing import Any

from tasks.data.shards import Shards
from tasks.evaluation.candidates import Candidates
from tasks.evaluation.robustness import measure_robustness
from tasks.evaluation.robustness_table import RobustnessFigures, robustness_figures
from tasks.schema import Evaluate


@dataclass(frozen=True)
class Parts:
    """What was found; None where a part is turned off."""

    robustness: RobustnessFigures | None

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json: a key a part, null where it is turned off."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part and part.as_metrics() for name, part in found.items()}

    def headlines(self) -> dict[str, float]:
        """The figures that the training run is compared by, by their names there."""
        if self.robustness is None:
            return {}
        return {"test_mean_corruption_error": self.robustness.error[0]}


def measure_parts(shards: Shards, candidates: Candidates, params: Evaluate) -> Parts:
    """Measure every part that is turned on, on the frozen test split."""
    return Parts(robustness=_robustness(shards, candidates, params))


def _robustness(
    shards: Shards, candidates: Candidates, params: Evaluate
) -> RobustnessFigures | None:
    if not params.robustness.enabled:
        return None
    models = {
        name: (candidates.file(name), candidates.named(name).runtime)
        for name in (candidates.chosen, candidates.fp32)
    }
    found = measure_robustness(shards.split("test"), models, params.robustness, params.seed)
    return robustness_figures(found, candidates.chosen, candidates.fp32, params)
