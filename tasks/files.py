"""Atomic writes and content hashes: a file is either whole or not there."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

_CHUNK = 1 << 20


@contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary sibling of `path`; on success fsync it and rename it into place.

    On any error (a full disk too) the temporary file is removed and `path` is left as
    it was. `mode` is "wb" or "w"; text is UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_write(path, "w") as stream:
        stream.write(text)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def append_line(path: Path | str, line: str) -> None:
    """Add a line to a file and make it durable; one that a crash tore is ended first.

    The caller holds a lock, so that there is one writer; a reader leaves out torn lines.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
        torn = stream.read(1) not in (b"", b"\n")
        stream.write((b"\n" if torn else b"") + line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def write_directory(path: Path | str, fill: Callable[[Path], None]) -> None:
    """Build a directory with `fill(temporary)`, then rename it to `path`.

    What was at `path` is moved away just before, and removed after; on any error while the
    new one is built it stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        fill(temporary)
        old = path.with_name(f".{path.name}.{uuid4().hex[:8]}.old")
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        _sync_directory(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_leftovers(path: Path | str) -> None:
    """Remove what a killed writer of `path` left beside it; only where nobody else writes it."""
    path = Path(path)
    for ending in ("tmp", "old"):
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.{ending}"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """SHA-256 of `value` in canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _sync_directory(path: Path) -> None:
    """Make a rename durable (POSIX asks for the directory to be synced too)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
