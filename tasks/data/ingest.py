"""The step `ingest`: a folder of class folders → data/manifest.parquet, one row a file.

Nothing is passed over silently: a file that is not a readable image is a row too, with
the reason in `error`. The manifest does not depend on the order of the file system.
"""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.describe import Row, describe_all
from tasks.data.parallel import Progress, chunks, in_order, workers_for
from tasks.data.tables import MANIFEST, write_table
from tasks.data.walk import find_files
from tasks.params import load_params
from tasks.pixels import STATISTICS
from tasks.step import run_step

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 64

log = logging.getLogger(__name__)


def ingest(root: Path, max_pixels: int, workers: int | None = None) -> list[Row]:
    """Describe every file below `root`, sorted by path; see `schema` for the columns.

    Raises DataError when there is no image to be had: a missing or empty folder, no class
    folders, or not one readable image.
    """
    found = find_files(root)
    if workers is None:
        workers = workers_for(file.file for file in found)
    rows: list[Row] = []
    progress = Progress("ingested", len(found))
    work = partial(describe_all, max_pixels=max_pixels)
    for part in in_order(work, chunks(found, _CHUNK), workers):
        rows += part
        progress.add(len(part))
    _report_unreadable(rows)
    return rows


def schema() -> "pa.Schema":
    """The columns of the manifest."""
    import pyarrow as pa

    text = ["path", "label", "file_hash", "pixel_hash"]
    return pa.schema(
        [(name, pa.string()) for name in text]
        + [("bytes", pa.int64()), ("width", pa.int32()), ("height", pa.int32())]
        + [("mode", pa.string())]
        + [(name, pa.float32()) for name in STATISTICS]
        + [("phash", pa.string()), ("thumbnail", pa.binary()), ("error", pa.string())]
    )


def to_table(rows: list[Row]) -> "pa.Table":
    """The rows as the manifest's table; what a row lacks is null."""
    import pyarrow as pa

    # by columns: pyarrow takes six times as long over rows
    columns = {name: [row.get(name) for row in rows] for name in schema().names}
    return pa.table(columns, schema=schema())


def _report_unreadable(rows: list[Row]) -> None:
    broken = [row for row in rows if row.get("error") is not None]
    for row in broken[:5]:
        log.warning("unreadable: %r: %s", row["path"], row["error"])
    if len(broken) > 5:
        log.warning(
            "... and %d more unreadable files; see `error` in the manifest", len(broken) - 5
        )


def main() -> None:
    """The step."""
    params = load_params().ingest
    write_table(MANIFEST, to_table(ingest(Path(params.path), params.max_pixels)))


if __name__ == "__main__":
    run_step(main)
