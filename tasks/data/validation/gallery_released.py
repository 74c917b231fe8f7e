"""Expectations on a table of images against the last released dataset.

Importing this module registers them, as `gallery` does. With nothing released yet they hold,
and say so.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from great_expectations.compatibility import pydantic

from tasks.data.validation.gallery import Finding, ImagesExpectation, kept, rows_of
from tasks.data.validation.outcomes import ROWS_SHOWN
from tasks.data.validation.released import Released, last_released

if TYPE_CHECKING:
    import pandas as pd

NOTHING_RELEASED = "nothing is released yet: holds"


class ExpectLabelsToEqualReleasedLabels(ImagesExpectation):
    """The labels of kept images are the classes of the last released bundle."""

    statement = "The labels are those of the last release"

    def look(self, table: "pd.DataFrame") -> Finding:
        """Compare; the first image of each new label is shown."""
        released = last_released()
        if released is None:
            return Finding(True, NOTHING_RELEASED, [])
        images = kept(table).dropna(subset="label")
        new = sorted(set(images["label"]) - set(released.classes))
        gone = sorted(set(released.classes) - set(images["label"]))
        observed = f"{_listed('new', new)}, {_listed('gone', gone)} since {released.name}"
        first = images[images["label"].isin(new)].drop_duplicates("label")
        return Finding(not new and not gone, observed, rows_of(first, "a new label"))


class ExpectStatisticsToStayNearReleasedStatistics(ImagesExpectation):
    """No image statistic of kept images drifted from those of the last released bundle.

    One drifted when the two-sample Kolmogorov-Smirnov distance (0..1) is over max_value and
    its p-value under alpha, by Bonferroni's correction: the drift check's measure, on the data.
    """

    max_value: float
    alpha: float = pydantic.Field(gt=0, lt=1)
    success_keys = ("max_value", "alpha")
    statement = "No statistic's distribution is over $max_value from the last release's"

    def look(self, table: "pd.DataFrame") -> Finding:
        """Compare; the images furthest from the release's median are shown."""
        released = last_released()
        if released is None:
            return Finding(True, NOTHING_RELEASED, [])
        images = kept(table).dropna(subset=list(released.statistics))
        if images.empty:
            return Finding(False, "no image", [])
        distances, drifted = self._distances(images, released)
        order = sorted(distances, key=lambda name: -distances[name])
        observed = ", ".join(f"{name} {distances[name]:.3f}" for name in order)
        rows = _furthest(images, released, order[0]) if drifted else []
        return Finding(not drifted, f"KS distance from {released.name}: {observed}", rows)

    def _distances(
        self, images: "pd.DataFrame", released: Released
    ) -> tuple[dict[str, float], list[str]]:
        from scipy.stats import ks_2samp

        distances, drifted = {}, []
        for name, reference in released.statistics.items():
            test = ks_2samp(reference, images[name].to_numpy(float), method="asymp")
            distances[name] = float(test.statistic)
            significant = test.pvalue < self.alpha / len(released.statistics)
            if significant and distances[name] > self.max_value:
                drifted.append(name)
        return distances, drifted


def _furthest(images: "pd.DataFrame", released: Released, name: str) -> list[dict[str, str]]:
    import numpy as np

    middle = float(np.median(released.statistics[name]))
    order = (images[name] - middle).abs().sort_values(ascending=False, kind="stable").index
    shown = images.loc[order[:ROWS_SHOWN]]
    return rows_of(shown, [f"{name} {value:.4g} (median {middle:.4g})" for value in shown[name]])


def _listed(what: str, labels: Sequence[str]) -> str:
    return f"{what}: {', '.join(map(repr, labels)) or 'none'}"
