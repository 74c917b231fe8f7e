"""A prefix in an object store (s3://bucket/prefix and what else fsspec knows), mirrored here.

Only objects that are new or have changed are fetched; what is gone there is removed here.
"""

import json
import logging
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.data.parallel import chunks
from tasks.data.sources.found import below
from tasks.errors import DataError
from tasks.files import sha256_json, write_json
from tasks.locks import waited_for
from tasks.progress import Progress

_INDEX = ".index.json"  # hidden names are no images
_TOGETHER = 256  # objects fetched at a time
_MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")

Listing = dict[str, list[str]]

log = logging.getLogger(__name__)


def is_bucket(path: str) -> bool:
    """Whether the path is the address of an object store."""
    return "://" in path


def mirrored(url: str, cache: Path, refresh: bool = True) -> Path:
    """The folder below `cache` that mirrors `url`, brought up to date if it is to be refreshed.

    A mirror that was interrupted goes on where it was. Raises DataError when the store cannot
    be reached or holds nothing there.
    """
    name = PurePosixPath(url.split("://")[1].rstrip("/")).name or "bucket"
    target = cache / f"{name}-{sha256_json(url.rstrip('/'))[:8]}"
    if not refresh and (target / _INDEX).exists():
        return target
    with waited_for(cache / f".{target.name}.lock", f"another process mirrors {url}"):
        try:
            _synchronise(url, target)
        except DataError:
            raise
        except ImportError as error:
            raise DataError(
                f"{url} needs a library that is not installed ({error}); for s3:// install "
                "the extra: .venv/bin/uv pip install 'visionloop[s3]'"
            ) from None
        except Exception as error:  # each store has errors of its own
            raise DataError(
                f"{url} cannot be read: {type(error).__name__}: {error}; check the address, "
                "the network and the credentials in the environment"
            ) from None
    return target


def _synchronise(url: str, target: Path) -> None:
    from fsspec.core import url_to_fs

    store, root = url_to_fs(url)
    # listings are cached by fsspec: this process may live long
    store.invalidate_cache()
    listing = _list(store, root)
    if not listing:
        raise DataError(f"{url} holds no object; check the address")
    target.mkdir(parents=True, exist_ok=True)
    index = _read_index(target)
    for name in sorted(set(index) - set(listing)):
        (target / name).unlink(missing_ok=True)
        del index[name]
    changed = sorted(name for name, marks in listing.items() if index.get(name) != marks)
    log.info("%s: %d objects, %d new or changed", url, len(listing), len(changed))
    try:
        _fetch(store, root, target, changed, listing, index)
    finally:
        write_json(target / _INDEX, index)


def _list(store: Any, root: str) -> Listing:
    """Relative name → size and what marks a version of the object."""
    listing: Listing = {}
    for path, info in store.find(root, detail=True).items():
        name = path[len(root) :].lstrip("/")
        if info.get("type") == "file" and name and below("/r", name):
            marks = [str(info[key]) for key in _MARKS if info.get(key) is not None]
            listing[name] = [str(info.get("size")), *marks]
    return listing


def _fetch(
    store: Any, root: str, target: Path, names: list[str], listing: Listing, index: Listing
) -> None:
    with Progress("fetched", len(names)) as progress:
        for some in chunks(names, _TOGETHER):
            for name in some:
                index.pop(name, None)  # until it is whole
                (target / name).parent.mkdir(parents=True, exist_ok=True)
            there = [f"{root.rstrip('/')}/{name}" for name in some]
            store.get(there, [str(target / name) for name in some])
            index.update({name: listing[name] for name in some})
            progress.add(len(some))


def _read_index(target: Path) -> Listing:
    try:
        index = json.loads((target / _INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: marks for name, marks in index.items() if (target / name).is_file()}
