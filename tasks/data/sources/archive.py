"""A zip or tar archive, unpacked once: no path or link leads out of it, its size is limited."""

import logging
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import IO

from tasks.data.sources.found import below
from tasks.errors import DataError
from tasks.files import remove_leftovers, sha256_json, write_directory, write_text
from tasks.locks import waited_for
from tasks.schema import Ingest

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_STAMP = ".stamp"  # hidden names are no images
_REPORT_SECONDS = 5.0
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, ValueError)

Member = tuple[str, IO[bytes]]

log = logging.getLogger(__name__)


def is_archive(path: str) -> bool:
    """Whether the name is that of an archive."""
    return path.lower().endswith(ENDINGS)


def unpacked(archive: Path, limits: Ingest, cache: Path) -> Path:
    """The folder below `cache` with the files of `archive`; it is unpacked when it has changed.

    Only regular files are unpacked: links, devices and pipes are passed over. A single folder
    around everything is stepped into. Raises DataError, and keeps nothing, when the archive
    is damaged, a name leads out of it, or it is beyond the limits.
    """
    if not archive.is_file():
        raise DataError(f"the archive {archive} does not exist")
    status = archive.stat()
    stamp = sha256_json([status.st_size, status.st_mtime_ns, status.st_ino])
    target = cache / f"{archive.name.split('.')[0]}-{sha256_json(str(archive.resolve()))[:8]}"
    with waited_for(cache / ".lock", f"another process unpacks {archive.name}"):
        if not _is_current(target, stamp):
            remove_leftovers(target)
            write_directory(target, lambda folder: _unpack(archive, folder, limits, stamp))
    return _inner(target)


def _is_current(target: Path, stamp: str) -> bool:
    file = target / _STAMP
    return file.is_file() and file.read_text(encoding="utf-8") == stamp


def _unpack(archive: Path, folder: Path, limits: Ingest, stamp: str) -> None:
    log.info("unpacking %s ...", archive)
    left = int(limits.max_archive_gb * 1e9)
    count, reported = 0, time.monotonic()
    try:
        with _members(archive) as members:
            for name, stream in members:
                count += 1
                left -= _copy(stream, _target(archive, folder, name), left)
                if count > limits.max_archive_files or left < 0:
                    raise DataError(_beyond(archive, limits))
                if time.monotonic() - reported > _REPORT_SECONDS:
                    reported = time.monotonic()
                    log.info("unpacked %d files", count)
    except (*_BROKEN, RuntimeError) as error:  # RuntimeError: zipfile's word for "encrypted"
        raise DataError(
            f"the archive {archive} cannot be unpacked: {error}; nothing of it was kept"
        ) from None
    log.info("unpacked %d files of %s", count, archive.name)
    write_text(folder / _STAMP, stamp)


def _beyond(archive: Path, limits: Ingest) -> str:
    return (
        f"the archive {archive} holds more than {limits.max_archive_files:,} files or "
        f"{limits.max_archive_gb:g} GB; raise ingest.max_archive_files or ingest.max_archive_gb "
        "if it is meant to"
    )


def _target(archive: Path, folder: Path, name: str) -> Path:
    file = below(str(folder), name)
    if file is None or "\0" in name:
        raise DataError(f"the archive {archive} is not safe: {name!r} leads out of it")
    target = Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _copy(stream: IO[bytes], target: Path, most: int) -> int:
    """Copy at most a little more than `most` bytes: what a header says of a size may be a lie."""
    copied = 0
    with stream, open(target, "wb") as file:
        while copied <= most and (chunk := stream.read(1 << 20)):
            copied += file.write(chunk)
    return copied


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[Member]]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            files = (info for info in opened.infolist() if not info.is_dir())
            yield ((info.filename, opened.open(info)) for info in files)
    else:
        with tarfile.open(archive) as opened:
            yield _tar_members(opened)


def _tar_members(opened: tarfile.TarFile) -> Iterator[Member]:
    passed_over = 0
    for member in opened:
        stream = opened.extractfile(member) if member.isreg() else None
        if stream is not None:
            yield member.name, stream
        elif not member.isdir():
            passed_over += 1
    if passed_over:
        log.warning("%d links or devices in the archive were passed over", passed_over)


def _inner(folder: Path) -> Path:
    """The folder that holds more than one folder: archives often wrap everything in one."""
    while True:
        hidden = (".", "__MACOSX")
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(hidden)]
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        folder = entries[0]
