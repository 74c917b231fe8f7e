"""Ordered, bounded map of a function over chunks of work, on every core.

A small job runs in this process: starting workers would take longer than the work.
"""

import logging
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TypeVar

from tasks.errors import DataError
from tasks.step import die_with_parent

_REPORT_SECONDS = 5.0
_SMALL_FILES, _SMALL_BYTES = 4000, 32 << 20

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


def cores() -> int:
    """The processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_for(files: Iterable[str]) -> int:
    """How many processes to decode `files` with: one when others would start too late to help."""
    size = 0
    for count, file in enumerate(files, start=1):
        with suppress(OSError):
            size += os.stat(file).st_size
        if count > _SMALL_FILES or size > _SMALL_BYTES:
            return cores()
    return 1


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut `items` into runs of at most `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def in_order(
    work: Callable[[Sequence[Item]], Result], jobs: Iterable[Sequence[Item]], workers: int
) -> Iterator[Result]:
    """`work(job)` for each job, in order; `work` and its results must be picklable.

    At most four jobs a worker are in flight, so memory stays bounded. With one worker the
    work is done here. Raises DataError when a worker process is killed.
    """
    if workers <= 1:
        yield from map(work, jobs)
        return
    # spawn: this process has threads, and forking those is unsafe
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=die_with_parent) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, most likely for lack of memory; "
                "lower ingest.max_pixels or free memory, and run again"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


class Progress:
    """Logs how far a long job is and how fast, every few seconds and at the end."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._start = self._reported = time.monotonic()

    def add(self, count: int) -> None:
        """`count` more are done."""
        self._done += count
        now = time.monotonic()
        if self._done == self._total or now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            rate = self._done / max(now - self._start, 1e-6)
            log.info("%s %d of %d (%.0f/s)", self._what, self._done, self._total, rate)
