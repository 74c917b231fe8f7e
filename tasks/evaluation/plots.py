"""Plots of the report that only an evaluation has, as inline SVG."""

import math

from markupsafe import Markup

from tasks.evaluation.decisions import Decided
from tasks.metrics.reliability import Reliability
from tasks.pages.charts import Series, chart


def reliability_chart(before: Reliability, after: Reliability) -> Markup:
    """Accuracy against confidence per bin, before and after calibration."""
    lowest = min(part.min() for r in (before, after) for part in (r.confidence, r.accuracy))
    low = max(0.0, math.floor(lowest * 10 - 1e-9) / 10)
    parts = [
        Series("perfectly calibrated", (low, 1), (low, 1), "muted"),
        Series("before calibration", before.confidence.tolist(), before.accuracy.tolist(), "s2"),
        Series("as deployed", after.confidence.tolist(), after.accuracy.tolist(), "s1"),
    ]
    return chart("Reliability", "mean confidence", "accuracy", parts, (low, 1.0), shares=True)


def risk_coverage_chart(decided: Decided) -> Markup:
    """Share of wrong answers against the share of images that are answered."""
    curve = decided.curve
    parts = [Series("all thresholds", curve.coverage.tolist(), curve.risk.tolist(), "s1")]
    if decided.decision.abstain_below is not None and decided.coverage > 0:
        parts.append(Series("as deployed", [decided.coverage], [decided.risk], "s2", line=False))
    return chart("Risk and coverage", "answered", "wrong of those", parts, shares=True)
