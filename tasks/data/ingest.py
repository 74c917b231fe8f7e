"""The step `ingest NAME`: a source of images → data/manifest/NAME.parquet, one row an image.

Nothing is passed over silently: a file that is not a readable image is a row too, with
the reason in `error`. The manifest does not depend on the order of the file system, nor on
whether a file was read now or, unchanged, by an earlier ingest.
"""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.data.describe import Row, describe_all
from tasks.data.known import keep, known_file, stamps, take_known
from tasks.data.parallel import Progress, chunks, in_order, workers_for
from tasks.data.sources import Found, find, local_folder
from tasks.data.tables import manifest_file, write_table
from tasks.errors import ParamsError
from tasks.params import load_params, load_settings
from tasks.pixels import STATISTICS
from tasks.step import run_step

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 64

log = logging.getLogger(__name__)


def ingest(
    name: str,
    found: list[Found],
    max_pixels: int,
    workers: int | None = None,
    known: Path | None = None,
) -> "pa.Table":
    """Describe the images `found` in the source `name`, in their order; for columns see `schema`.

    `known` is the file that keeps the rows of unchanged files from one call to the next.
    """
    if known is None:
        measured = _read(found, max_pixels, workers)
    else:
        measured = _read_changed(found, max_pixels, workers, known)
    table = _listed(name, found, measured)
    _report(table)
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
        keep(known, found, table, current)
    return table


def schema() -> "pa.Schema":
    """The columns of the manifest: what the source says of an image, then what its file holds."""
    import pyarrow as pa

    text = ["path", "source", "label", "given_group", "given_split"]
    listed = [(name, pa.string()) for name in text]
    listed += [("weight", pa.float64()), ("metadata", pa.string()), ("box", pa.string())]
    return pa.schema([*listed, *_measured()])


def _measured() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema(
        [("file_hash", pa.string()), ("pixel_hash", pa.string()), ("bytes", pa.int64())]
        + [("width", pa.int32()), ("height", pa.int32()), ("mode", pa.string())]
        + [(name, pa.float32()) for name in (*STATISTICS, "entropy")]
        + [("phash", pa.string()), ("thumbnail", pa.binary())]
        + [("note", pa.string()), ("error", pa.string())]
    )


def _to_table(rows: list[Row]) -> "pa.Table":
    """What was measured as a table; what a row lacks is null."""
    import pyarrow as pa

    # by columns: pyarrow takes six times as long over rows
    columns = {name: [row.get(name) for row in rows] for name in _measured().names}
    return pa.table(columns, schema=_measured())


def _listed(name: str, found: list[Found], measured: "pa.Table") -> "pa.Table":
    """The manifest: `measured` behind the columns that the source gives."""
    import pyarrow as pa

    columns = {
        "path": [f"{name}/{one.path}" for one in found],
        "source": [name] * len(found),
        "label": [one.label for one in found],
        "given_group": [one.group for one in found],
        "given_split": [one.split for one in found],
        "weight": [one.weight for one in found],
        "metadata": [one.metadata for one in found],
        "box": [",".join(map(str, one.box)) if one.box else None for one in found],
    }
    columns |= {column: measured[column] for column in measured.column_names}
    return pa.table(columns, schema=schema())


def _report(table: "pa.Table") -> None:
    broken = table.select(["path", "error"]).filter(table["error"].is_valid())
    for row in broken.slice(0, 5).to_pylist():
        log.warning("unreadable: %r: %s", row["path"], row["error"])
    if len(broken) > 5:
        log.warning(
            "... and %d more unreadable files; see `error` in the manifest", len(broken) - 5
        )
    if noted := len(table) - table["note"].null_count:
        log.warning("%d files hold several images, the first is used; see `note`", noted)


def main() -> None:
    """The step."""
    params, settings = load_params().ingest, load_settings()
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in params.sources:
        raise ParamsError(f"{name!r} is none of ingest.sources: {', '.join(params.sources)}")
    source = params.sources[name]
    folder = local_folder(source, params, settings.home)
    known = known_file(settings.home, folder, params.max_pixels)
    table = ingest(name, find(source, folder), params.max_pixels, known=known)
    write_table(manifest_file(name), table)


if __name__ == "__main__":
    run_step(main)
