"""The step `ingest NAME`: a source of images → data/manifest/NAME.parquet, one row an image.

Nothing is passed over silently: a file that is not a readable image is a row too, with
the reason in `error`. The manifest does not depend on the order of the file system, nor on
whether a file was read now or, unchanged, by an earlier ingest.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.data.describe import Row, describe_all
from tasks.data.known import Indices, is_stale, keep, keeping, known_file, stamps, take_known
from tasks.data.parallel import chunks, cluster_address, in_order, workers_for
from tasks.data.sources.found import Found
from tasks.data.sources.locate import find, local_folder
from tasks.data.tables import manifest_file, write_table
from tasks.errors import ParamsError
from tasks.params import load_params, load_settings
from tasks.pixels import STATISTICS
from tasks.progress import Progress
from tasks.step import run_step

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 64
_SHORT_RUN = 16  # rows: to copy so many costs no more than a slice of the table
_PART_ROWS, _PART_SECONDS = 1024, 5.0  # finished rows are kept when they are this many or old

log = logging.getLogger(__name__)


def ingest(
    name: str,
    found: list[Found],
    max_pixels: int,
    workers: int | None = None,
    known: Path | None = None,
    cluster: str | None = None,
) -> "pa.Table":
    """Describe the images `found` in the source `name`, in their order; for columns see `schema`.

    `known` is the file that keeps the rows of unchanged files from one call to the next, and
    what a killed call had finished. `cluster` is the address of a Dask scheduler whose workers
    read the files.
    """
    read = partial(_read, max_pixels=max_pixels, workers=workers, cluster=cluster)
    measured = read(found) if known is None else _read_changed(found, read, known)
    table = _listed(name, found, measured)
    _report(table)
    return table


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
    if found and not os.path.isabs(found[0].file):  # workers may be in another directory
        here = os.getcwd()
        found = [one._replace(file=os.path.join(here, one.file)) for one in found]
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
    old, place = take_known(known, found, current)
    changed = np.flatnonzero(place < 0)
    if old is not None:
        unchanged = len(found) - len(changed)
        log.info("%d files are unchanged, %d are new or changed", unchanged, len(changed))
    new = [found[index] for index in changed]
    with keeping(known, new, current[changed]) as keep_part:
        table = read(new, keep_part=keep_part)
    if old is not None:
        place[changed] = len(old) + np.arange(len(changed))
        table = _in_order(pa.concat_tables([old, table]), place)
    if old is None or is_stale(known, len(old) + len(changed), len(found)):
        keep(known, found, table, current)
    return table


def _in_order(table: "pa.Table", place: Indices) -> "pa.Table":
    """The rows at `place`: without a copy where they lie side by side in long runs."""
    import pyarrow as pa

    starts = np.flatnonzero(np.diff(place, prepend=-2) != 1)
    if len(starts) * _SHORT_RUN > len(place):
        return table.take(place)
    ends = np.append(starts[1:], len(place))
    runs = zip(place[starts].tolist(), (ends - starts).tolist(), strict=True)
    return pa.concat_tables([table.schema.empty_table(), *(table.slice(*run) for run in runs)])


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

    columns: dict[str, list[Any]] = {
        "path": [f"{name}/{one.path}" for one in found],
        "source": [name] * len(found),
        "label": [one.label for one in found],
        "given_group": [one.group for one in found],
        "given_split": [one.split for one in found],
        "weight": [one.weight for one in found],
        "metadata": [one.metadata for one in found],
        "box": [one.box and ",".join(map(str, one.box)) for one in found],
    }
    kinds = schema()
    arrays = {
        # most columns are empty, and pyarrow takes its time to see that
        column: pa.nulls(len(found), kinds.field(column).type)
        if values.count(None) == len(values)
        else pa.array(values, kinds.field(column).type)
        for column, values in columns.items()
    }
    arrays |= {column: measured[column] for column in measured.column_names}
    return pa.table(arrays, schema=kinds)


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
    source, cluster = params.sources[name], cluster_address(params, settings)
    folder = local_folder(source, params, settings.home)
    known = known_file(settings.home, folder, params.max_pixels)
    table = ingest(name, find(source, folder), params.max_pixels, known=known, cluster=cluster)
    write_table(manifest_file(name), table)


if __name__ == "__main__":
    run_step(main)
