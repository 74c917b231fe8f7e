"""The drift report: Evidently's HTML of reference against window, one self-contained file.

Evidently is imported here alone, and late: it takes seconds. It sends nothing anywhere.
"""

import html
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.files import write_text
from tasks.monitoring.drift import Array, DriftResult, Sample, columns

_TEST = "ks_distance"


def write_report(
    path: Path,
    reference: Mapping[str, Array],
    window: Sample,
    classes: Sequence[str],
    result: DriftResult,
) -> None:
    """Write the page; its verdict on each column is `result`'s, not a default of Evidently."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    _register(result)
    before = columns(reference["probabilities"], reference["statistics"], classes)
    after = columns(window.probabilities, window.statistics, classes)
    definition = DataDefinition(numerical_columns=list(before))

    def dataset(values: Mapping[str, Array]) -> Any:
        return Dataset.from_pandas(pd.DataFrame(values), data_definition=definition)

    report = Report([DataDriftPreset(num_method=_TEST, drift_share=1 / len(before))])
    with warnings.catch_warnings():  # the correlations of a constant column, which none looks at
        warnings.simplefilter("ignore", RuntimeWarning)
        snapshot = report.run(dataset(after), dataset(before))
        page = str(snapshot.get_html_str(as_iframe=False))
    write_text(path, page.replace("<body>", f"<body>{_heading(result)}", 1))


def _register(result: DriftResult) -> None:
    """Teach Evidently a test that gives, for a column, the distance and verdict of `result`."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    features = {feature.name: feature for feature in result.features}

    def verdict(reference: Any, *_: object) -> tuple[float, bool]:
        feature = features[reference.name]
        return feature.distance, feature.drifted

    shown = f"KS distance, p < {result.features[0].threshold:.2g}"
    test = StatTest(_TEST, shown, [ColumnType.Numerical], result.min_effect)
    register_stattest(test, verdict)


def _heading(result: DriftResult) -> str:
    title = result.outcome.replace("_", " ").capitalize()
    return (
        '<div style="font: 16px sans-serif; padding: 1rem">'
        f"<h1>{title}</h1><p>{html.escape(result.summary)}. Compared: {result.n} predictions with "
        f"{result.reference_n} held-out images. A feature drifted when its two-sample "
        f"Kolmogorov-Smirnov distance is at least {result.min_effect:g} with a p-value below "
        f"{result.features[0].threshold:.2g}.</p></div>"
    )
