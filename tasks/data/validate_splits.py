"""The step `validate_splits`: expectations on data/splits.parquet → data/validation_splits.

As the step `validate`, between splitting and preparing: a leak between splits, or a class that
is too small in one of them, stops the run before anything learns from it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.tables import CLEANED, SPLITS, read_table
from tasks.data.validate import validate
from tasks.files import remove_leftovers
from tasks.params import load_params
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

TARGET = Path("data/validation_splits")


def joined(splits: "pd.DataFrame", cleaned: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of the splits, by path, with the columns that only the cleaned table has."""
    others = [name for name in cleaned.columns if name == "path" or name not in splits.columns]
    return splits.merge(cleaned[others], on="path", how="left", validate="one_to_one")


def main() -> None:
    """The step."""
    remove_leftovers(TARGET)
    table = joined(read_table(SPLITS, "split"), read_table(CLEANED, "clean"))
    validate({"splits": table}, load_params(), TARGET)


if __name__ == "__main__":
    run_step(main)
