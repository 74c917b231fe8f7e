"""A CSV or Parquet table that lists images: `path` and `label`, one row an image.

Optional columns are `group` (images that must not be in two splits, such as those of one
patient), `split` and `weight`; all others survive as metadata in the manifest.
"""

import difflib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.sources.found import SPLIT_NAMES, Found, as_metadata, below
from tasks.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("path", "label")
_OPTIONAL = ("group", "split", "weight")
_SEPARATORS = (",", ";", "\t")

log = logging.getLogger(__name__)


def find_listed(folder: Path, annotations: str) -> list[Found]:
    """The images that the table `annotations` lists, sorted by path.

    Paths in the table, and that of the table, are relative to `folder`. A row whose image
    cannot be used keeps the reason. Raises DataError for a table that cannot be read, lacks
    a column, or has a split or weight that is none.
    """
    file = folder / annotations
    table = read_listing(file)
    found: list[Found] = []
    first: dict[str, int] = {}
    for number, row in _rows(table, file):
        if row.path in first:
            why = f"listed before, in row {first[row.path]}"
            row = row._replace(path=f"{row.path} (row {number})", problem=why)
        first[row.path] = number
        found.append(_placed(row, folder))
    if not found:
        raise DataError(f"{file} lists no image; add rows with {' and '.join(REQUIRED)}")
    log.info("%s lists %d images", file, len(found))
    return sorted(found, key=lambda one: one.path)


def read_listing(file: Path) -> "pd.DataFrame":
    """The table with every value as text, empty cells as None; raises DataError."""
    import pandas as pd

    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
        else:
            # "NA" and "None" may well be names of classes
            table = pd.read_csv(
                file,
                sep=_separator(file),
                dtype=str,
                encoding="utf-8-sig",
                keep_default_na=False,
                na_values=[""],
            )
    except FileNotFoundError:
        raise DataError(f"the table {file} does not exist; mend `annotations`") from None
    except (ValueError, OSError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise DataError(f"the table {file} cannot be read: {error}") from None
    _check_columns(table, file)
    return table.astype(object).mask(table.isna(), None)


def _separator(file: Path) -> str:
    """The likeliest of comma, semicolon (as spreadsheets write in some countries) and tab."""
    with open(file, encoding="utf-8-sig") as stream:
        header = stream.readline()
    return max(_SEPARATORS, key=header.count)


def _check_columns(table: "pd.DataFrame", file: Path) -> None:
    names = [str(name) for name in table.columns]
    for name in REQUIRED:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"rename {near[0]!r}" if near else "add it"
            raise DataError(
                f"the table {file} has no column {name!r} ({hint}); it has {', '.join(names)}"
            )


def _rows(table: "pd.DataFrame", file: Path) -> Iterator[tuple[int, Found]]:
    """Row number, as an editor shows it, and what the row says."""
    columns = [table[name] if name in table else [None] * len(table) for name in _OPTIONAL]
    free = [str(name) for name in table.columns if name not in (*REQUIRED, *_OPTIONAL)]
    metadata = table[free].to_dict("records") if free else [{}] * len(table)
    rows = zip(table["path"], table["label"], *columns, metadata, strict=True)
    for number, (path, label, group, split, weight, rest) in enumerate(rows, start=2):
        yield (
            number,
            Found(
                path=str(path or f"(row {number})"),
                label=None if label is None else str(label),
                file=str(path or ""),
                problem=_problem(path, label, number),
                group=None if group is None else str(group),
                split=_split(split, file, number),
                weight=_weight(weight, file, number),
                metadata=as_metadata(rest),
            ),
        )


def _problem(path: object, label: object, number: int) -> str | None:
    if path is None:
        return f"row {number} of the table has no path"
    return None if label is not None else f"row {number} of the table has no label"


def _split(value: object, file: Path, number: int) -> str | None:
    if value is None:
        return None
    name = SPLIT_NAMES.get(str(value).strip().lower())
    if name is None:
        raise DataError(
            f"row {number} of {file}: split {value!r} is none of {', '.join(sorted(SPLIT_NAMES))}"
        )
    return name


def _weight(value: object, file: Path, number: int) -> float | None:
    if value is None:
        return None
    try:
        weight = float(str(value))
    except ValueError:
        weight = float("nan")
    if not 0 < weight < float("inf"):
        raise DataError(f"row {number} of {file}: weight {value!r} is not a number above 0")
    return weight


def _placed(row: Found, folder: Path) -> Found:
    file = below(str(folder), row.file) if row.file else None
    if file is not None:
        return row._replace(file=file)
    why = row.problem or f"the path leads out of {folder.name}"
    return row._replace(file=str(folder / "nowhere"), problem=why)
