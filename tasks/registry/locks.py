"""File locks that say what they guard: MLflow has no compare-and-set, so we bring our own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.errors import ServiceError


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
