"""Class folders, <root>/<class>/…/<image>, or <root>/<split>/<class>/…/<image>."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from tasks.data.sources.found import SPLIT_NAMES, Found
from tasks.errors import DataError

LAYOUT = "put images in class folders, PATH/<class>/<image>, and run `visionloop init --data PATH`"
_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}

Identity = tuple[int, int]

log = logging.getLogger(__name__)


def find_files(root: Path) -> list[Found]:
    """Every file below `root`, sorted by path, whatever it holds.

    The first folder below `root` is the class, however deep the file lies. Hidden names and
    the litter of operating systems are passed over; links are followed, but never round in
    a circle. Raises DataError when there is nothing to find or a folder cannot be listed.
    """
    _check(root)
    top = str(root)
    found = sorted((_found(top, file) for file in _walk(top, ())), key=lambda f: f.path)
    if not any(file.label is not None for file in found):
        raise DataError(f"the class folders of {root} are empty; {LAYOUT}")
    log.info("found %d files below %s", len(found), root)
    return found


def find_split_files(root: Path) -> list[Found]:
    """As `find_files`, of class folders in folders named train, val (or validation) and test.

    Raises DataError when a folder has another name.
    """
    _check(root)
    splits = split_folders(root)
    found = [
        Found(entry.name, None, entry.path, "outside the folders of splits")
        for entry in _entries(str(root))
        if entry.name not in splits
    ]
    for name, split in splits.items():
        for one in find_files(root / name):
            found.append(one._replace(path=f"{name}/{one.path}", split=split))
    return sorted(found, key=lambda one: one.path)


def split_folders(root: Path) -> dict[str, str]:
    """The folders of `root` and the split that each one's name means."""
    names = [entry.name for entry in _entries(str(root)) if _is_folder(entry)]
    wrong = [name for name in names if name.lower() not in SPLIT_NAMES]
    if wrong:
        raise DataError(
            f"{root} is declared as split_folders, but {wrong[0]!r} is none of "
            f"{', '.join(sorted(SPLIT_NAMES))}; rename it, or set its layout to folders"
        )
    return {name: SPLIT_NAMES[name.lower()] for name in names}


def _check(root: Path) -> None:
    if not root.exists():
        raise DataError(f"the folder {root} does not exist; {LAYOUT}")
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder; {LAYOUT}")
    entries = _entries(str(root))
    if not entries:
        raise DataError(f"the folder {root} is empty; {LAYOUT}")
    if not any(_is_folder(entry) for entry in entries):
        raise DataError(f"the folder {root} holds {len(entries)} files but no folder; {LAYOUT}")


def _walk(folder: str, above: tuple[Identity, ...]) -> Iterator[str]:
    identity = _identity(folder)
    if identity in above:
        log.warning("%s leads back to a folder above it; not followed", folder)
        return
    for entry in _entries(folder):
        if _is_folder(entry):
            yield from _walk(entry.path, (*above, identity))
        else:
            yield entry.path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not _is_litter(entry.name)]
    except OSError as error:
        raise DataError(
            f"cannot list {folder}: {error.strerror}; mend its permissions or move it away"
        ) from None


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; the file's own row will say so
        return False


def _identity(folder: str) -> Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _found(root: str, file: str) -> Found:
    name = file[len(root) :].lstrip(os.sep).replace(os.sep, "/")
    # what is no valid UTF-8 comes from the system as lone surrogates
    path = name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")
    label = path.split("/")[0] if "/" in path else None
    if path != name:
        return Found(path, label, file, "the name is not valid UTF-8; rename it")
    if label is None:
        return Found(path, label, file, "outside the class folders")
    return Found(path, label, file)
