"""The step `ingest`: a folder of class folders → data/manifest.parquet, one row a file.

Nothing is passed over silently: a file that is not a readable image is a row too, with
the reason in `error`. The manifest does not depend on the order of the file system, nor on
whether a file was read now or, unchanged, by an earlier ingest.
"""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.data.describe import Row, describe_all
from tasks.data.known import keep, known_file, stamps, take_known
from tasks.data.parallel import Progress, chunks, in_order, workers_for
from tasks.data.tables import MANIFEST, write_table
from tasks.data.walk import Found, find_files
from tasks.params import load_params, load_settings
from tasks.pixels import STATISTICS
from tasks.step import run_step

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 64

log = logging.getLogger(__name__)


def ingest(
    root: Path, max_pixels: int, workers: int | None = None, known: Path | None = None
) -> "pa.Table":
    """Describe every file below `root`, sorted by path; see `schema` for the columns.

    `known` is the file that keeps the rows of unchanged files from one call to the next. Raises
    DataError when there is no image to be had: a missing or empty folder, no class folders, or
    not one readable image.
    """
    found = find_files(root)
    if known is None:
        table = _read(found, max_pixels, workers)
    else:
        table = _read_changed(found, max_pixels, workers, known)
    _report_unreadable(table)
    return table


def _read(found: list[Found], max_pixels: int, workers: int | None) -> "pa.Table":
    if workers is None:
        workers = workers_for(file.file for file in found)
    rows: list[Row] = []
    progress = Progress("ingested", len(found))
    work = partial(describe_all, max_pixels=max_pixels)
    for part in in_order(work, chunks(found, _CHUNK), workers):
        rows += part
        progress.add(len(part))
    return _to_table(rows)


def _read_changed(
    found: list[Found], max_pixels: int, workers: int | None, known: Path
) -> "pa.Table":
    """As `_read`, taking from `known` what has not changed."""
    import pyarrow as pa

    current = stamps(found)  # before anything is read: a change after it is seen the next time
    old, unchanged = take_known(known, found, current)
    changed = np.setdiff1d(np.arange(len(found)), unchanged)
    if old is not None:
        log.info("%d files are unchanged, %d are new or changed", len(unchanged), len(changed))
    table = _read([found[index] for index in changed], max_pixels, workers)
    if old is not None:
        order = np.argsort(np.concatenate([unchanged, changed]))
        table = pa.concat_tables([old, table]).take(order)
    if len(changed) or old is None:
        keep(known, table, current)
    return table


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


def _to_table(rows: list[Row]) -> "pa.Table":
    """The rows as the manifest's table; what a row lacks is null."""
    import pyarrow as pa

    # by columns: pyarrow takes six times as long over rows
    columns = {name: [row.get(name) for row in rows] for name in schema().names}
    return pa.table(columns, schema=schema())


def _report_unreadable(table: "pa.Table") -> None:
    broken = table.select(["path", "error"]).filter(table["error"].is_valid())
    for row in broken.slice(0, 5).to_pylist():
        log.warning("unreadable: %r: %s", row["path"], row["error"])
    if len(broken) > 5:
        log.warning(
            "... and %d more unreadable files; see `error` in the manifest", len(broken) - 5
        )


def main() -> None:
    """The step."""
    params = load_params().ingest
    root = Path(params.path)
    known = known_file(load_settings().home, root, params.max_pixels)
    write_table(MANIFEST, ingest(root, params.max_pixels, known=known))


if __name__ == "__main__":
    run_step(main)
