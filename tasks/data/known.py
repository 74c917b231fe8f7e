"""Manifest rows of files that have not changed since an earlier ingest: they are not read again.

As in git's index, a file is unchanged when its size, times and inode are. One that was changed
less than two seconds before it was looked at is read again: a second change within a clock
tick would not show. New rows go to a journal while an ingest is at work, so that one that is
killed goes on where it was; when many rows are out of date all are written anew, into one file.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.data.journal import Journal, read_journal
from tasks.data.sources.found import Found
from tasks.files import atomic_write, sha256, sha256_json

if TYPE_CHECKING:
    import pyarrow as pa

Stamps = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]

_STAMP = ("_size", "_mtime", "_ctime", "_inode")
_KEY = "_key"
_UNCERTAIN_NS = 2_000_000_000
# The code whose change makes other rows of the same files.
_CODE = ("describe.py", "ingest.py", "phash.py", "../pixels.py")

_STALE = 1.25  # rows kept for each file that is there; with more, the file is written anew

log = logging.getLogger(__name__)


def known_file(home: Path, root: Path, max_pixels: int) -> Path:
    """Where the rows of this folder are kept, made by this code with these libraries."""
    import PIL

    code = [sha256(Path(__file__).parent / name) for name in _CODE]
    key = [str(root.resolve()), max_pixels, code, PIL.__version__, np.__version__]
    return home / "ingest" / f"{sha256_json(key)[:16]}.arrow"


def stamps(found: Sequence[Found]) -> Stamps:
    """Size, mtime, ctime (ns) and inode of each file, int64 N×4.

    -1 where the file cannot be asked, or was changed so lately that it must be read again.
    """
    values = chain.from_iterable(_stamp(one.file) for one in found)
    table = np.fromiter(values, np.int64, len(found) * len(_STAMP)).reshape(-1, len(_STAMP))
    table[table[:, 1:3].max(axis=1, initial=-1) >= time.time_ns() - _UNCERTAIN_NS] = -1
    return table


def _stamp(file: str) -> tuple[int, int, int, int]:
    try:
        status = os.stat(file)
    except OSError:
        return (-1, -1, -1, -1)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def take_known(
    file: Path, found: Sequence[Found], current: Stamps
) -> "tuple[pa.Table | None, Indices]":
    """The kept rows, and for each of `found` the one that holds still, or -1: int64 [N]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = _load(file)
    if kept is None or not len(kept):
        return None, np.full(len(found), -1)
    keys = pa.array(map(_key, found), pa.string())
    place = pc.fill_null(pc.index_in(keys, value_set=kept[_KEY].combine_chunks()), -1)
    where = place.to_numpy().astype(np.int64)
    before = np.column_stack([kept[name].to_numpy() for name in _STAMP])
    same = (where >= 0) & (before[where] == current).all(axis=1) & (current[:, 0] >= 0)
    return kept.drop_columns([_KEY, *_STAMP]), np.where(same, where, -1)


@contextmanager
def keeping(
    file: Path, found: Sequence[Found], current: Stamps
) -> "Iterator[Callable[[pa.Table], None]]":
    """Gives a function that keeps the next rows at once, in the order of `found`."""
    with Journal(_journal(file)) as journal:
        done = 0

        def keep_part(rows: "pa.Table") -> None:
            nonlocal done
            part = slice(done, done + len(rows))
            journal.append(_stamped(rows, found[part], current[part]))
            done += len(rows)

        yield keep_part


def keep(file: Path, found: Sequence[Found], rows: "pa.Table", current: Stamps) -> None:
    """Keep all rows of `found` with their files' stamps, and nothing else."""
    import pyarrow as pa

    rows = _stamped(rows, found, current)
    with atomic_write(file) as stream, pa.ipc.new_file(stream, rows.schema) as writer:
        writer.write_table(rows)
    _journal(file).unlink(missing_ok=True)


def is_stale(file: Path, rows: int, files: int) -> bool:
    """Whether all is to be written anew: only the journal is there, or many rows are of no use."""
    return not file.exists() or rows > _STALE * files


def _stamped(rows: "pa.Table", found: Sequence[Found], current: Stamps) -> "pa.Table":
    """The rows of files that can be known again, with their stamps."""
    import pyarrow as pa

    rows = rows.append_column(_KEY, pa.array(map(_key, found), pa.string()))
    for column, name in enumerate(_STAMP):
        rows = rows.append_column(name, pa.array(current[:, column]))
    return rows.filter(pa.array(current[:, 0] >= 0))


def _journal(file: Path) -> Path:
    return file.with_suffix(".journal")


def _key(one: Found) -> str:
    """What a row depends on besides the file."""
    return (
        one.path
        if one.box is None and one.problem is None
        else f"{one.path} {one.box} {one.problem}"
    )


def _load(file: Path) -> "pa.Table | None":
    """The rows that were kept, the newest first: those of the journal come before."""
    import pyarrow as pa

    tables = read_journal(_journal(file))[::-1]
    try:
        with pa.memory_map(str(file)) as stream:
            tables.append(pa.ipc.open_file(stream).read_all())
    except FileNotFoundError:
        pass
    except (pa.ArrowInvalid, OSError) as error:
        log.warning("%s is damaged (%s); what it knew is read again", file, error)
    return pa.concat_tables(tables) if tables else None
