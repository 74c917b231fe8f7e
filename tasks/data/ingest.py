"""The step `ingest`: a folder of class folders → data/manifest.parquet, one row a file.

Nothing is passed over silently: a file that is not a readable image is a row too, with
the reason in `error`. The manifest does not depend on the order of the file system, nor on
whether a file was read now or, unchanged, by an earlier ingest.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.data.describe import Row, describe_all
from tasks.data.known import keep, keeping, known_file, stamps, take_known
from tasks.data.parallel import chunks, cluster_address, in_order, workers_for
from tasks.data.progress import Progress
from tasks.data.tables import MANIFEST, write_table
from tasks.data.walk import Found, find_files
from tasks.params import load_params, load_settings
from tasks.pixels import STATISTICS
from tasks.step import run_step

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 64
_PART_ROWS, _PART_SECONDS = 1024, 5.0  # finished rows are kept when they are this many or old

log = logging.getLogger(__name__)


def ingest(
    root: Path,
    max_pixels: int,
    workers: int | None = None,
    known: Path | None = None,
    cluster: str | None = None,
) -> "pa.Table":
    """Describe every file below `root`, sorted by path; see `schema` for the columns.

    `known` is the file that keeps the rows of unchanged files from one call to the next, and
    what a killed call had finished. `cluster` is the address of a Dask scheduler whose workers
    read the files. Raises DataError when there is no image to be had: a missing or empty folder,
    no class folders, or not one readable image.
    """
    found = find_files(root)
    read = partial(_read, max_pixels=max_pixels, workers=workers, cluster=cluster)
    table = read(found) if known is None else _read_changed(found, read, known)
    _report_unreadable(table)
    return table.combine_chunks()  # however it came about, the same bytes are written


def _read(
    found: list[Found],
    max_pixels: int,
    workers: int | None,
    cluster: str | None,
    keep_part: "Callable[[pa.Table], None]" = lambda _: None,
) -> "pa.Table":
    """The rows of the files; each part of them is given to `keep_part` when it is finished."""
    import pyarrow as pa

    if workers is None:
        workers = workers_for(file.file for file in found)
    here = os.getcwd()  # which need not be the workers'
    found = [replace(one, file=os.path.join(here, one.file)) for one in found]
    parts, rows, started = [_to_table([])], list[Row](), time.monotonic()

    def finish_part() -> None:
        if not rows:
            return
        parts.append(_to_table(rows))
        rows.clear()
        keep_part(parts[-1])

    work = partial(describe_all, max_pixels=max_pixels)
    with Progress("ingested", len(found)) as progress:
        try:
            for some in in_order(work, chunks(found, _CHUNK), workers, cluster):
                rows += some
                progress.add(len(some))
                if len(rows) >= _PART_ROWS or time.monotonic() - started > _PART_SECONDS:
                    finish_part()
                    started = time.monotonic()
        finally:  # when it is interrupted too
            finish_part()
    return pa.concat_tables(parts)


def _read_changed(found: list[Found], read: "Callable[..., pa.Table]", known: Path) -> "pa.Table":
    """As `read`, taking from `known` what has not changed."""
    import pyarrow as pa

    current = stamps(found)  # before anything is read: a change after it is seen the next time
    old, unchanged = take_known(known, found, current)
    changed = np.setdiff1d(np.arange(len(found)), unchanged)
    if old is not None:
        log.info("%d files are unchanged, %d are new or changed", len(unchanged), len(changed))
    with keeping(known, current[changed]) as keep_part:
        table = read([found[index] for index in changed], keep_part=keep_part)
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
    params, settings = load_params().ingest, load_settings()
    cluster = cluster_address(params, settings)
    root = Path(params.path)
    known = known_file(settings.home, root, params.max_pixels)
    write_table(MANIFEST, ingest(root, params.max_pixels, known=known, cluster=cluster))


if __name__ == "__main__":
    run_step(main)
