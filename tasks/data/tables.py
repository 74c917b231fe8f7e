"""The Parquet tables between the data steps, written whole or not at all."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import DataError
from tasks.files import atomic_write, remove_leftovers

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MANIFEST = Path("data/manifest")
DECISIONS = Path("data/decisions.parquet")
DUPLICATES = Path("data/duplicates.parquet")
CLEANED = Path("data/cleaned.parquet")
SPLITS = Path("data/splits.parquet")


def manifest_file(source: str) -> Path:
    """Where the rows of a source are."""
    return MANIFEST / f"{source}.parquet"


def read_manifest(sources: Iterable[str]) -> "pd.DataFrame":
    """The rows of all sources, by path; raises DataError."""
    import pandas as pd

    tables = [read_table(manifest_file(name), f"ingest@{name}") for name in sources]
    return pd.concat(tables).sort_values("path", ignore_index=True)


def read_table(path: Path, made_by: str, columns: list[str] | None = None) -> "pd.DataFrame":
    """A table, or some columns of it; raises DataError naming the stage that makes it."""
    import pandas as pd
    import pyarrow as pa

    way_out = f"run `dvc repro {made_by}`"
    try:
        return pd.read_parquet(path, columns=columns)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {way_out}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it and {way_out}") from None


def write_table(path: Path, table: "pa.Table | pd.DataFrame") -> None:
    """Write a table; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    remove_leftovers(path)
    whole = table.combine_chunks()  # pages begin where chunks do
    with atomic_write(path) as stream:
        pq.write_table(whole, stream, compression="zstd")
