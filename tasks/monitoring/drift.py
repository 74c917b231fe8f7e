"""Has the world moved? Two-sample tests of served predictions against held-out ones.

Takes the champion's reference arrays and a window of the prediction log, gives a decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tasks.errors import DataError
from tasks.pixels import STATISTICS
from tasks.schema import Drift

# A model is a little surer of images it was trained on (1e-7 where it says 1e-5 elsewhere).
# Ranks see that difference; nobody else does.
_DECIMALS = 3

Outcome = Literal["drift", "no_drift", "too_few"]
Array = npt.NDArray[Any]


class Sample(Protocol):
    """What is compared: probabilities float32 N×C and statistics float32 N×5 (STATISTICS)."""

    @property
    def probabilities(self) -> Array: ...  # noqa: D102

    @property
    def statistics(self) -> Array: ...  # noqa: D102


@dataclass(frozen=True)
class Feature:
    """One compared column; it drifted when p_value < threshold and distance >= min_effect."""

    name: str
    distance: float
    p_value: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class DriftResult:
    """A decision and its reasons. `features` is empty when there were too few predictions."""

    outcome: Outcome
    n: int
    reference_n: int
    min_predictions: int
    min_effect: float
    features: tuple[Feature, ...]

    @property
    def drifted(self) -> tuple[Feature, ...]:
        """The features that drifted, furthest first."""
        return tuple(sorted((f for f in self.features if f.drifted), key=lambda f: -f.distance))

    @property
    def summary(self) -> str:
        """The decision in one sentence."""
        if self.outcome == "too_few":
            return f"too few predictions to tell: {self.n} of at least {self.min_predictions}"
        if self.outcome == "no_drift":
            return f"no drift in {self.n} predictions"
        names = ", ".join(f"{f.name} (KS distance {f.distance:.2f})" for f in self.drifted[:3])
        return f"drift in {len(self.drifted)} of {len(self.features)} features: {names}"

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def check_drift(
    reference: Mapping[str, Array], window: Sample, params: Drift, classes: Sequence[str]
) -> DriftResult:
    """Compare a window with the reference, feature by feature.

    Two-sample Kolmogorov-Smirnov tests of each class probability and each image statistic,
    at the family-wise error rate `alpha` by Bonferroni's correction. With thousands of
    predictions every trifle is significant, so a feature drifts only if its KS distance
    (0..1) is at least `min_effect` too. Raises DataError when the columns do not match.
    """
    from scipy.stats import ks_2samp  # half a second: not for `--help`

    n, reference_n = len(window.probabilities), len(reference["probabilities"])
    if n < params.min_predictions:
        return _result("too_few", n, reference_n, params, ())
    before = columns(reference["probabilities"], reference["statistics"], classes)
    after = columns(window.probabilities, window.statistics, classes)
    threshold = params.alpha / len(before)
    features = []
    for name, values in before.items():
        test = ks_2samp(values, after[name], method="asymp")
        distance, p_value = float(test.statistic), float(test.pvalue)
        drifted = p_value < threshold and distance >= params.min_effect
        features.append(Feature(name, distance, p_value, threshold, drifted))
    outcome: Outcome = "drift" if any(feature.drifted for feature in features) else "no_drift"
    return _result(outcome, n, reference_n, params, tuple(features))


def columns(probabilities: Array, statistics: Array, classes: Sequence[str]) -> dict[str, Array]:
    """The compared columns by name, float64 [N]; probabilities rounded to three decimals."""
    if probabilities.ndim != 2 or probabilities.shape[1] != len(classes):
        raise DataError(f"probabilities {probabilities.shape} are not of {len(classes)} classes")
    rounded = np.round(probabilities.astype(np.float64), _DECIMALS)
    named = {f"P({name})": rounded[:, index] for index, name in enumerate(classes)}
    measured = statistics.astype(np.float64)
    return named | {name: measured[:, index] for index, name in enumerate(STATISTICS)}


def _result(
    outcome: Outcome, n: int, reference_n: int, params: Drift, features: tuple[Feature, ...]
) -> DriftResult:
    return DriftResult(outcome, n, reference_n, params.min_predictions, params.min_effect, features)
