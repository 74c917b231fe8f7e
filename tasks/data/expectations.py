"""The expectations on the cleaned manifest, run by Great Expectations, with Data Docs."""

import importlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.schema import Validate

if TYPE_CHECKING:
    import pandas as pd

ROWS_SHOWN = 10
_REQUIRED = ("label", "pixel_hash", "width", "height", "brightness", "sharpness", "phash")


@dataclass(frozen=True)
class Outcome:
    """One expectation's result; `rows` are up to ROWS_SHOWN offenders (path, class, value)."""

    expectation: str
    description: str
    param: str
    success: bool
    observed: str
    limit: str
    rows: list[dict[str, str]] = field(default_factory=list)


def check(cleaned: "pd.DataFrame", config: Validate, site: Path) -> list[Outcome]:
    """Run every expectation on the cleaned manifest and build Data Docs in `site`.

    Nothing leaves this machine: the context lives in memory and telemetry is off.
    """
    context = _context(site)
    import great_expectations as gx

    source = context.data_sources.add_pandas("cleaned")
    data = source.add_dataframe_asset("images").add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name="images", expectations=_rules(config)))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="images", data=data, suite=suite)
    )
    result = definition.run(
        batch_parameters={"dataframe": _frame(cleaned)},
        result_format={
            "result_format": "SUMMARY",
            "unexpected_index_column_names": ["path", "label"],
            "partial_unexpected_count": ROWS_SHOWN,
        },
    )
    context.build_data_docs(site_names=["site"])
    return [_outcome(item) for item in result.results]


def _context(site: Path) -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # on import it logs a line for every function it does not document
    logging.getLogger("great_expectations._docs_decorators").disabled = True
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx
    from great_expectations.data_context.types import base

    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.resolve())}
    config = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(),
        progress_bars=base.ProgressBarsConfig(globally=False),
        analytics_enabled=False,
        data_docs_sites={
            "site": {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": store,
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            }
        },
    )
    return gx.get_context(project_config=config, mode="ephemeral")


def _gallery() -> Any:
    """Great Expectations' own expectations, by class name."""
    return importlib.import_module("great_expectations.expectations")


def _frame(cleaned: "pd.DataFrame") -> "pd.DataFrame":
    """The manifest with the columns the expectations look at, and without thumbnails."""
    table = cleaned.drop(columns="thumbnail")
    table["shorter_side"] = table[["width", "height"]].min(axis=1)
    table["longer_side"] = table[["width", "height"]].max(axis=1)
    # on the first row of a class alone: one row a class is enough to name it
    counts = table.groupby("label")["keep"].transform("sum").astype(float)
    table["images_of_class"] = counts.mask(table.duplicated("label"))
    names = [name for name in table.columns if name.startswith("flag_")]
    flags = table[names].rename(columns=lambda name: name.removeprefix("flag_"))
    table["flags"] = [", ".join(flags.columns[row]) or None for row in flags.to_numpy()]
    return table


def _rules(config: Validate) -> list[Any]:
    rules = [*_class_rules(config), *_size_rules(config), *_null_rules()]
    return [*rules, _flagged_rule(config), *_label_rules(config)]


def _class_rules(config: Validate) -> list[Any]:
    gxe = _gallery()
    return [
        _rule(
            gxe.ExpectColumnUniqueValueCountToBeBetween,
            "There are enough classes",
            "validate.min_classes",
            f"at least {config.min_classes} classes with a kept image",
            column="label",
            min_value=config.min_classes,
        ),
        _rule(
            gxe.ExpectColumnValuesToBeBetween,
            "Every class has enough kept images",
            "validate.min_per_class",
            f"at least {config.min_per_class} images a class",
            kept=False,  # a class that was dropped as a whole must show up
            column="images_of_class",
            min_value=config.min_per_class,
        ),
    ]


def _size_rules(config: Validate) -> list[Any]:
    gxe = _gallery()
    return [
        _rule(
            gxe.ExpectColumnValuesToBeBetween,
            "No kept image is too small",
            "validate.min_side",
            f"shorter side of at least {config.min_side} pixels",
            column="shorter_side",
            min_value=config.min_side,
        ),
        _rule(
            gxe.ExpectColumnValuesToBeBetween,
            "No kept image is too large",
            "validate.max_side",
            f"longer side of at most {config.max_side} pixels",
            column="longer_side",
            max_value=config.max_side,
        ),
    ]


def _null_rules() -> list[Any]:
    gxe = _gallery()
    return [
        _rule(
            gxe.ExpectColumnValuesToNotBeNull,
            f"Every kept row has a {column}",
            "clean.policy",
            "no null",
            column=column,
        )
        for column in _REQUIRED
    ]


def _flagged_rule(config: Validate) -> Any:
    gxe = _gallery()
    return _rule(
        gxe.ExpectColumnValuesToBeNull,
        "Few files are flagged by cleaning",
        "validate.max_flagged_share",
        f"at most {config.max_flagged_share:.1%} of all files",
        kept=False,
        column="flags",
        mostly=round(1 - config.max_flagged_share, 12),
    )


def _label_rules(config: Validate) -> list[Any]:
    gxe = _gallery()
    if config.labels is None:
        return []
    declared = ", ".join(map(repr, config.labels))
    return [
        _rule(
            gxe.ExpectColumnValuesToBeInSet,
            "Every label is a declared one",
            "validate.labels",
            f"one of {declared}",
            column="label",
            value_set=config.labels,
        ),
        _rule(
            gxe.ExpectColumnDistinctValuesToContainSet,
            "Every declared label has images",
            "validate.labels",
            f"all of {declared}",
            column="label",
            value_set=config.labels,
        ),
    ]


def _rule(
    make: Callable[..., Any],
    description: str,
    param: str,
    limit: str,
    kept: bool = True,
    **values: object,
) -> Any:
    from great_expectations.expectations.row_conditions import Column

    if kept:
        values["row_condition"] = Column("keep") == True  # noqa: E712 - builds a condition
    return make(description=description, meta={"param": param, "limit": limit}, **values)


def _outcome(item: Any) -> Outcome:
    config = item.expectation_config
    rows = item.result.get("partial_unexpected_index_list") or []
    return Outcome(
        expectation=f"{config.type}({config.kwargs['column']})",
        description=config.description,
        param=config.meta["param"],
        success=bool(item.success),
        observed=_observed(item),
        limit=config.meta["limit"],
        rows=[{key: str(value) for key, value in row.items()} for row in rows[:ROWS_SHOWN]],
    )


def _observed(item: Any) -> str:
    if item.exception_info.get("raised_exception"):
        return f"an error: {item.exception_info['exception_message']}"
    if missing := item.result.get("partial_missing_list"):
        return f"no image of {', '.join(map(repr, missing))}"
    if "unexpected_percent" in item.result:
        counted = item.result["element_count"] - _ignored(item)
        return f"{item.result['unexpected_count']} of {counted} rows"
    return str(item.result.get("observed_value"))


def _ignored(item: Any) -> int:
    """Nulls are passed over, except where null is what the expectation is about."""
    return (
        int(item.result.get("missing_count", 0))
        if "null" not in item.expectation_config.type
        else 0
    )
