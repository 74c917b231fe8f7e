"""File locks between processes: one that is waited for in words, and one that gives up."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.errors import ServiceError

log = logging.getLogger(__name__)


@contextmanager
def waited_for(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock `path`; when another process has it, say what is `busy` and wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s; waiting for it to end", busy)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held(path: Path, seconds: float, what: str) -> Iterator[None]:
    """Hold the lock `path`; after `seconds` raise ServiceError that `what` goes on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise ServiceError(
            f"{what} and has held {path} for over {seconds:.0f} s; wait for it or end it"
        ) from None
    try:
        yield
    finally:
        lock.release()
