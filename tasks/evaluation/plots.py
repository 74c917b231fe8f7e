"""Plots of the report that only an evaluation has, as inline SVG."""

import math

from markupsafe import Markup

from tasks.metrics.reliability import Reliability
from tasks.pages.charts import Series, chart


def reliability_chart(before: Reliability, after: Reliability) -> Markup:
    """Accuracy against confidence per bin, before and after temperature scaling."""
    lowest = min(part.min() for r in (before, after) for part in (r.confidence, r.accuracy))
    low = max(0.0, math.floor(lowest * 10 - 1e-9) / 10)
    parts = [
        Series("perfectly calibrated", (low, 1), (low, 1), "muted"),
        Series("before scaling", before.confidence.tolist(), before.accuracy.tolist(), "s2"),
        Series("as deployed", after.confidence.tolist(), after.accuracy.tolist(), "s1"),
    ]
    return chart("Reliability", "mean confidence", "accuracy", parts, (low, 1.0), shares=True)
