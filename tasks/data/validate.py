"""The step `validate`: expectations on the manifest, before and after cleaning → data/validation.

Cleaning adds columns and drops no row, so that both are checked in one go after it. result.json
holds every outcome, site/index.html is Great Expectations' Data Docs; both are written before
a failure is raised, so that there is something to look at. `validate_splits` is its sequel.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.attributes import attributes
from tasks.data.tables import CLEANED, read_manifest, read_table
from tasks.data.validation.expectations import FOLDER, check_columns, load_entries
from tasks.data.validation.outcomes import Outcome
from tasks.data.validation.suites import build, run
from tasks.errors import ValidationFailed
from tasks.files import remove_leftovers, write_directory, write_json
from tasks.params import check_groups, load_params
from tasks.schema import Params
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

TARGET = Path("data/validation")
RESULT, SITE = "result.json", "site"
_LEVELS = {"warning": logging.WARNING, "info": logging.INFO}

log = logging.getLogger(__name__)


def validate(
    tables: Mapping[str, "pd.DataFrame"], params: Params, target: Path, folder: Path = FOLDER
) -> dict[str, list[Outcome]]:
    """Check tables by name ("manifest", "cleaned", "splits") and write `target`.

    Raises ParamsError for a mistake in a file of `folder`, before anything is run, and
    ValidationFailed when an expectation of severity critical fails: the message gives the
    observed value, the limit and up to ten files. Warnings are logged.
    """
    entries = load_entries(params.validate_, folder)
    suites = {name: (_with_sides(table), entries[name]) for name, table in tables.items()}
    for table, declared in suites.values():
        check_columns(declared, table.columns)
    for declared in entries.values():  # those of the other tables too: better now than later
        build(declared)
    outcomes: dict[str, list[Outcome]] = {}

    def fill(directory: Path) -> None:
        outcomes.update(run(suites, directory / SITE, params.ingest))
        results = {name: [asdict(one) for one in found] for name, found in outcomes.items()}
        write_json(directory / RESULT, results)

    write_directory(target, fill)
    _report([one for found in outcomes.values() for one in found], target)
    return outcomes


def _with_sides(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table without its thumbnails' bytes, and with the columns that shapes are judged by."""
    table = table.drop(columns="thumbnail", errors="ignore")
    table["shorter_side"] = table[["width", "height"]].min(axis=1)
    table["longer_side"] = table[["width", "height"]].max(axis=1)
    return table


def _report(outcomes: list[Outcome], target: Path) -> None:
    failed = [one for one in outcomes if not one.success]
    log.info("%d of %d expectations hold", len(outcomes) - len(failed), len(outcomes))
    stopping = [one for one in failed if one.severity == "critical"]
    for one in failed:
        if one.severity != "critical":
            log.log(_LEVELS[one.severity], "%s, the run goes on: %s", one.severity, _explain(one))
    if stopping:
        raise ValidationFailed(_message(stopping, target))


def _message(failed: list[Outcome], target: Path) -> str:
    what = "an expectation on the data does"
    if len(failed) > 1:
        what = f"{len(failed)} expectations on the data do"
    first = (
        f"{what} not hold; see {target / SITE / 'index.html'}, and mend the data or change the "
        f"params named below or {FOLDER}"
    )
    return "\n".join([first, *(f"- {_explain(outcome)}" for outcome in failed)])


def _explain(outcome: Outcome) -> str:
    lines = [
        f"{outcome.description}: {outcome.expectation} failed",
        f"    observed: {outcome.observed}; limit: {outcome.limit}",
    ]
    lines += [f"    {_row(row)}" for row in outcome.rows]
    return "\n".join(lines)


def _row(row: dict[str, str]) -> str:
    value = f", {row['value']}" if row["value"] else ""
    return f"{row['path']!r}: label {row['label']!r}{value}"


def main() -> None:
    """The step."""
    remove_leftovers(TARGET)
    params = load_params()
    manifest, cleaned = read_manifest(params.ingest.sources), read_table(CLEANED, "clean")
    if params.evaluate.slices.groups:  # better now than after the training
        check_groups(params.evaluate.slices.groups, attributes(cleaned).columns)
    validate({"manifest": manifest, "cleaned": cleaned}, params, TARGET)


if __name__ == "__main__":
    run_step(main)
