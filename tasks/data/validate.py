"""The step `validate`: expectations on data/cleaned.parquet → data/validation.

result.json holds every outcome, site/index.html is Great Expectations' Data Docs. Both
are written before a failure is raised, so that there is something to look at.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.expectations import Outcome, check
from tasks.data.tables import CLEANED, read_table
from tasks.errors import ValidationFailed
from tasks.files import remove_leftovers, write_directory, write_json
from tasks.params import load_params
from tasks.schema import Validate
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

TARGET = Path("data/validation")
RESULT, SITE = "result.json", "site"

log = logging.getLogger(__name__)


def validate(cleaned: "pd.DataFrame", config: Validate, target: Path = TARGET) -> list[Outcome]:
    """Check the cleaned manifest and write `target`; raises ValidationFailed afterwards.

    The message gives, for each expectation that failed, the observed value, the limit and
    up to ten rows.
    """
    outcomes: list[Outcome] = []

    def fill(folder: Path) -> None:
        outcomes.extend(check(cleaned, config, folder / SITE))
        write_json(folder / RESULT, [asdict(outcome) for outcome in outcomes])

    write_directory(target, fill)
    failed = [outcome for outcome in outcomes if not outcome.success]
    log.info("%d of %d expectations hold", len(outcomes) - len(failed), len(outcomes))
    if failed:
        raise ValidationFailed(_message(failed, target))
    return outcomes


def _message(failed: list[Outcome], target: Path) -> str:
    parts = [
        f"{len(failed)} expectations on the data do not hold"
        if len(failed) > 1
        else "an expectation on the data does not hold"
    ]
    parts += [_explain(outcome) for outcome in failed]
    parts.append(f"look at {target / SITE / 'index.html'} and `reason` in {CLEANED}; mend the data")
    return "\n".join(parts) + " or change the params named above"


def _explain(outcome: Outcome) -> str:
    lines = [
        f"- {outcome.description}: {outcome.expectation} failed",
        f"    observed: {outcome.observed}; limit: {outcome.limit} ({outcome.param})",
    ]
    lines += [f"    {_row(row)}" for row in outcome.rows]
    return "\n".join(lines)


def _row(row: dict[str, str]) -> str:
    values = ", ".join(f"{key} {value!r}" for key, value in row.items() if key != "path")
    return f"{row['path']!r}: {values}"


def main() -> None:
    """The step."""
    remove_leftovers(TARGET)
    validate(read_table(CLEANED, "clean"), load_params().validate_)


if __name__ == "__main__":
    run_step(main)
