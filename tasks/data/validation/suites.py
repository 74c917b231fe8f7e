"""Runs declared expectations with Great Expectations and writes its Data Docs.

Nothing leaves this machine: the context lives in memory and telemetry is off. The library
takes seconds to import, so that everything about it is behind the functions here.
"""

import importlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data.validation.expectations import Entry, nearest
from tasks.data.validation.outcomes import ROWS_SHOWN, Outcome, outcome_of
from tasks.data.validation.site import finish
from tasks.data.validation.thumbnails import Pictures, figure
from tasks.errors import ParamsError
from tasks.schema import Ingest

if TYPE_CHECKING:
    import pandas as pd

_FORMAT = {
    "result_format": "SUMMARY",
    "unexpected_index_column_names": ["path", "label"],
    "partial_unexpected_count": ROWS_SHOWN,
}


def build(entries: Iterable[Entry]) -> list[Any]:
    """The entries as the library's expectations, each with its place in `meta["entry"]`.

    Raises ParamsError for an unknown type or a wrong kwarg.
    """
    return [_build(entry, number) for number, entry in enumerate(entries)]


def run(
    suites: Mapping[str, tuple["pd.DataFrame", Sequence[Entry]]], site: Path, ingest: Ingest
) -> dict[str, list[Outcome]]:
    """Run each table's expectations, in their order, and build one site of Data Docs in `site`.

    Beside an expectation that fails, the site shows thumbnails of its offenders.
    """
    built = {name: build(entries) for name, (_, entries) in suites.items()}
    context = _context(site)
    outcomes = {}
    for name, (table, entries) in suites.items():
        results = _run(context, name, table, built[name])
        outcomes[name] = [outcome_of(*pair) for pair in zip(entries, results, strict=True)]
    _show_offenders(context, suites, outcomes, ingest)
    context.build_data_docs(site_names=["site"])
    finish(site, outcomes)
    return outcomes


def _library() -> Any:
    """Great Expectations, with our own expectations registered."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # on import it logs a line for every function it does not document
    logging.getLogger("great_expectations._docs_decorators").disabled = True
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    for module in ("tasks.data.validation.gallery", "tasks.data.validation.gallery_released"):
        importlib.import_module(module)
    return importlib.import_module("great_expectations")


def _build(entry: Entry, number: int) -> Any:
    _library()
    registry = importlib.import_module("great_expectations.expectations.registry")
    known = registry.list_registered_expectation_implementations()
    if entry.type not in known:
        raise ParamsError(f"{entry.where}: no such expectation{nearest(entry.type, known)}")
    kind = registry.get_expectation_impl(entry.type)
    meta = {**entry.extras.get("meta", {}), "entry": number}
    given = {**entry.kwargs, **entry.extras, "meta": meta, "severity": entry.severity}
    if entry.description is not None:
        given["description"] = entry.description
    conditions = importlib.import_module("great_expectations.expectations.row_conditions")
    try:
        if isinstance(condition := entry.kwargs.get("row_condition"), dict):
            conditions.deserialize_row_condition(condition)  # complains better than `kind`
        return kind(**given)
    except (ValueError, TypeError) as error:
        raise ParamsError(f"{entry.where}: {_mistake(error, kind)}") from None


def _mistake(error: Any, kind: Any) -> str:
    """The library's complaint in one line, with the nearest kwarg for an unknown one."""
    if not hasattr(error, "errors"):  # not pydantic's
        return " ".join(str(error).split())
    unknown = "value_error.extra"  # says more than the kwarg that is missing for it
    first = min(error.errors(), key=lambda one: one["type"] != unknown)
    name = str(first["loc"][0])
    if first["type"] == unknown:
        return f"{name!r} is not one of its kwargs{nearest(name, kind.__fields__)}"
    return f"{name}: {' '.join(first['msg'].split())}"


def _context(site: Path) -> Any:
    gx = _library()
    base = importlib.import_module("great_expectations.data_context.types.base")
    tables = {"module_name": "tasks.data.validation.data_docs", "class_name": "OffenderTable"}
    sections = {"class_name": "ValidationResultsColumnSectionRenderer", "table_renderer": tables}
    pages = {"class_name": "ValidationResultsPageRenderer", "column_section_renderer": sections}
    config = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(),
        progress_bars=base.ProgressBarsConfig(globally=False),
        analytics_enabled=False,
        data_docs_sites={
            "site": {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(site.resolve()),
                },
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "site_section_builders": {"validations": {"renderer": pages}},
            }
        },
    )
    return gx.get_context(project_config=config, mode="ephemeral")


def _run(context: Any, name: str, table: "pd.DataFrame", expectations: list[Any]) -> list[Any]:
    """The library's results for the expectations on a table, in their order."""
    gx = _library()
    source = context.data_sources.add_pandas(name)
    data = source.add_dataframe_asset("images").add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=data, suite=suite)
    )
    result = definition.run(batch_parameters={"dataframe": table}, result_format=_FORMAT)
    return sorted(result.results, key=lambda item: item.expectation_config.meta["entry"])


def _show_offenders(
    context: Any,
    suites: Mapping[str, tuple["pd.DataFrame", Sequence[Entry]]],
    outcomes: Mapping[str, list[Outcome]],
    ingest: Ingest,
) -> None:
    """Put what Data Docs shall show beside each failure into the stored results."""
    store = context.validation_results_store
    failed = any(not one.success for found in outcomes.values() for one in found)
    pictures = Pictures.of(ingest) if failed else None
    for key in store.list_keys():
        stored = store.get(key)
        table = suites[stored.suite_name][0]
        for item in stored.results:
            outcome = outcomes[stored.suite_name][item.expectation_config.meta["entry"]]
            if not outcome.success and pictures is not None:
                item.meta = {**(item.meta or {}), **_shown(outcome, table, pictures)}
        store.set(key, stored)


def _shown(outcome: Outcome, table: "pd.DataFrame", pictures: Pictures) -> dict[str, Any]:
    paths = [row["path"] for row in outcome.rows]
    found = table[table["path"].isin(paths)].drop_duplicates("path").set_index("path", drop=False)
    figures = [
        figure(dict(found.loc[row["path"]]), pictures, (row["label"], row["path"], row["value"]))
        for row in outcome.rows
        if row["path"] in found.index
    ]
    return {"severity": outcome.severity, "limit": outcome.limit, "figures": figures}
