"""Validation of tables by expectations, as its tests ask for it."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from tasks.data.validate import validate
from tasks.data.validation.expectations import FOLDER
from tasks.data.validation.outcomes import Outcome
from tasks.params import check_params, read_yaml
from tasks.schema import Params

ROOT = Path(__file__).parents[2]
EXPECTATIONS = ROOT / FOLDER


def params_of(images: Path, **changes: Any) -> Params:
    """The quickstart's params for another folder, with values of `validate` changed."""
    values = read_yaml(ROOT / "conf/params.yaml")
    values["ingest"]["sources"] = {"digits": {"path": str(images), "layout": "folders"}}
    values["validate"] |= changes
    return check_params(values)


def expectations(folder: Path, table: str, entries: list[dict[str, Any]]) -> Path:
    """A copy of conf/expectations in which `table` has these entries."""
    copy = Path(shutil.copytree(EXPECTATIONS, folder / "expectations", dirs_exist_ok=True))
    YAML().dump({"expectations": entries}, copy / f"{table}.yaml")
    return copy


def check(
    tables: dict[str, pd.DataFrame],
    target: Path,
    entries: list[dict[str, Any]] | None = None,
    images: Path = Path("images"),
    **changes: Any,
) -> dict[str, list[Outcome]]:
    """Validate tables by conf/expectations, or the only table by these entries."""
    folder = EXPECTATIONS
    if entries is not None:
        folder = expectations(target.parent, next(iter(tables)), entries)
    return validate(tables, params_of(images, **changes), target, folder)


def pages(target: Path, table: str = "cleaned") -> str:
    found = (target / "site").glob(f"validations/{table}/**/*.html")
    return "".join(file.read_text() for file in found)
