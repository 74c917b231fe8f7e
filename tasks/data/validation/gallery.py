"""Expectations on tables of images that Great Expectations' gallery does not have.

Importing this module registers them, by their names in snake_case. They look at the whole
table (the manifest, the cleaned manifest or the splits) and count kept images, which are all
before cleaning. Only `suites` imports this module: the library takes seconds.
"""

from abc import abstractmethod
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from great_expectations.compatibility import pydantic
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
from great_expectations.render.components import (
    LegacyRendererType,
    RenderedStringTemplateContent,
)
from great_expectations.render.renderer.renderer import renderer

from tasks.data.validation.outcomes import ROWS_SHOWN

if TYPE_CHECKING:
    import pandas as pd


class Finding(NamedTuple):
    """What an expectation saw; `rows` are offenders (path, label, value), the worst first."""

    success: bool
    observed: str
    rows: list[dict[str, str]]


class ImageRecords(TableMetricProvider):
    """The whole table."""

    metric_name = "images.records"

    @metric_value(engine=PandasExecutionEngine)
    def _pandas(
        cls,  # noqa: N805 - the library makes it a class method
        execution_engine: PandasExecutionEngine,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any],
    ) -> "pd.DataFrame":
        return execution_engine.get_compute_domain(
            metric_domain_kwargs, domain_type=MetricDomainTypes.TABLE
        )[0]


class ImagesExpectation(BatchExpectation):
    """Base: a look at the whole table, and its rendering in Data Docs."""

    metric_dependencies = ("images.records",)
    statement: ClassVar[str]
    """What is expected, with the kwargs as $name."""

    @abstractmethod
    def look(self, table: "pd.DataFrame") -> Finding:
        """Look at the table, one row an image."""

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,
        execution_engine: Any = None,
    ) -> dict[str, Any]:
        found = self.look(metrics["images.records"])
        rows = [] if found.success else found.rows[:ROWS_SHOWN]
        result = {"observed_value": found.observed, "partial_unexpected_index_list": rows}
        return {"success": found.success, "result": result}

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(
        cls,
        configuration: Any = None,
        result: Any = None,
        runtime_configuration: Any = None,
    ) -> list[RenderedStringTemplateContent]:
        defaults = {name: found.default for name, found in cls.__fields__.items()}
        kwargs = {**defaults, **(configuration.kwargs if configuration else {})}
        shown = {name: str(kwargs[name]) for name in cls.success_keys}
        return [
            RenderedStringTemplateContent(
                content_block_type="string_template",
                string_template={"template": cls.statement, "params": shown},
            )
        ]


class BoundedExpectation(ImagesExpectation):
    """Base: a number from min_value to max_value, either of which may be left out."""

    min_value: float | None = None
    max_value: float | None = None
    success_keys: ClassVar[tuple[str, ...]] = ("min_value", "max_value")

    @pydantic.root_validator
    def _asks_for_something(cls, values: dict[str, Any]) -> dict[str, Any]:  # noqa: N805 - as above
        if values.get("min_value") is None and values.get("max_value") is None:
            raise ValueError("needs a min_value or a max_value")
        return values

    def within(self, value: float) -> bool:
        """Whether the value is in the bounds, inclusive."""
        above = self.min_value is None or value >= self.min_value
        return above and (self.max_value is None or value <= self.max_value)


class ExpectImagesPerClassToBeBetween(BoundedExpectation):
    """Every class has from min_value to max_value kept images, in each of `splits` if given.

    A class that was dropped as a whole has none.
    """

    splits: list[str] | None = None
    success_keys = ("min_value", "max_value", "splits")
    statement = "Every class has from $min_value to $max_value images (splits: $splits)"

    def look(self, table: "pd.DataFrame") -> Finding:
        """Count; one row of each class at fault is shown."""
        counts, rows = [], []
        for where, part in self._parts(kept(table)):
            for label, count in sorted(class_sizes(table, part).items(), key=itemgetter(1)):
                counts.append(count)
                if not self.within(count):
                    own = part if count else table
                    rows += rows_of(own[own["label"] == label].head(1), f"{count} images{where}")
        observed = f"{min(counts)} to {max(counts)} images" if counts else "no class"
        return Finding(bool(counts) and not rows, observed, rows)

    def _parts(self, images: "pd.DataFrame") -> list[tuple[str, "pd.DataFrame"]]:
        if self.splits is None:
            return [("", images)]
        return [(f" in {name}", images[images["split"] == name]) for name in self.splits]


class ExpectClassImbalanceRatioToBeBetween(BoundedExpectation):
    """The largest class has at most max_value times the kept images of the smallest.

    The imbalance ratio of Buda, Maki and Mazurowski, Neural Networks 106, 2018. Infinite when
    a class was dropped as a whole.
    """

    statement = "The largest class is from $min_value to $max_value times the smallest"

    def look(self, table: "pd.DataFrame") -> Finding:
        """Compare; images of the smallest class are shown."""
        sizes = class_sizes(table, kept(table))
        if not sizes:
            return Finding(False, "no class", [])
        smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        ratio = sizes[largest] / sizes[smallest] if sizes[smallest] else float("inf")
        observed = (
            f"{ratio:.4g}: {sizes[largest]} images of {largest!r}, "
            f"{sizes[smallest]} of {smallest!r}"
        )
        rows = rows_of(table[table["label"] == smallest].head(ROWS_SHOWN), "of the smallest class")
        return Finding(self.within(ratio), observed, rows)


class ExpectFlaggedShareToBeBetween(BoundedExpectation):
    """The share of all files that carry any of `flags` (null: any flag) is at most max_value.

    With flags [exact_duplicate, near_duplicate] it is the share of duplicates. For a cleaned
    table.
    """

    flags: list[str] | None = None
    success_keys = ("min_value", "max_value", "flags")
    statement = "The share of flagged files is from $min_value to $max_value (flags: $flags)"

    def look(self, table: "pd.DataFrame") -> Finding:
        """Count; the first flagged files are shown with their flags."""
        names = [name for name in table.columns if name.startswith("flag_")]
        if self.flags is not None:
            names = [f"flag_{flag}" for flag in self.flags]
        if not names:
            return Finding(False, "the table has no flags", [])
        flagged = table[table[names].any(axis=1)]
        share = len(flagged) / len(table) if len(table) else 0.0
        shown = flagged.head(ROWS_SHOWN)
        values = [
            ", ".join(name.removeprefix("flag_") for name in names if row[name])
            for row in shown[names].to_dict("records")
        ]
        observed = f"{len(flagged)} of {len(table)} files ({share:.2%})"
        return Finding(self.within(share), observed, rows_of(shown, values))


class ExpectColumnValuesToBeWithinOneSplit(ImagesExpectation):
    """No value of `column` (a content hash, a duplicate group) is in two splits. For splits."""

    column: str
    domain_keys = ("batch_id", "column")
    success_keys = ("column",)
    statement = "No value of $column is in two splits"

    def look(self, table: "pd.DataFrame") -> Finding:
        """Look for values in two splits; their rows are shown together."""
        known = table.dropna(subset=self.column)
        splits = known.groupby(self.column)["split"].transform("nunique")
        crossing = known[splits > 1].sort_values([self.column, "path"])
        shown = crossing.head(ROWS_SHOWN)
        values = [f"in {split}, {self.column} {value}" for split, value in
                  zip(shown["split"], shown[self.column], strict=True)]  # fmt: skip
        observed = f"{crossing[self.column].nunique()} in two splits, of {len(crossing)} images"
        return Finding(crossing.empty, observed, rows_of(shown, values))


def kept(table: "pd.DataFrame") -> "pd.DataFrame":
    """The kept rows; before cleaning, all that could be read."""
    if "keep" in table.columns:
        return table[table["keep"]]
    return table[table["error"].isna()] if "error" in table.columns else table


def class_sizes(table: "pd.DataFrame", part: "pd.DataFrame") -> dict[str, int]:
    """Images of `part` for each label of `table`."""
    counts = part["label"].value_counts()
    return {label: int(counts.get(label, 0)) for label in sorted(table["label"].dropna().unique())}


def rows_of(shown: "pd.DataFrame", values: str | Sequence[str]) -> list[dict[str, str]]:
    """Offenders: path, label and value of each row."""
    each = [values] * len(shown) if isinstance(values, str) else values
    return [
        {"path": str(path), "label": str(label), "value": value}
        for path, label, value in zip(shown["path"], shown["label"], each, strict=True)
    ]
