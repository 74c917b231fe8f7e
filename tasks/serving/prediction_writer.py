"""Writes predictions to the log off the request path: a bounded queue and one thread.

A request never waits for the database. While the database is away rows wait in memory;
when the queue is full further rows are dropped, counted and reported.
"""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from itertools import chain, repeat

from tasks.errors import ServiceError
from tasks.predictions import Prediction, PredictionLog

_BATCH = 500
_GATHER_SECONDS = 0.2
_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)
_QUEUE_ROWS = 20_000

log = logging.getLogger(__name__)


class PredictionWriter:
    """Appends rows to a prediction log from a thread of its own."""

    def __init__(self, target: PredictionLog, queue_rows: int = _QUEUE_ROWS) -> None:
        self._target = target
        self._queue: queue.Queue[Prediction] = queue.Queue(queue_rows)
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._lock = threading.Lock()
        self.written = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, rows: Sequence[Prediction]) -> None:
        """Hand rows over; never blocks. Rows that find the queue full are lost and counted."""
        for position, row in enumerate(rows):
            try:
                self._queue.put_nowait(row)
            except queue.Full:
                self._lose(len(rows) - position)
                return

    def close(self, seconds: float = 10.0) -> None:
        """Write what waits, for about `seconds` at most; what is left is lost and reported."""
        self._deadline = time.monotonic() + seconds
        self._stopping.set()
        self._thread.join(seconds + 5)
        if self._thread.is_alive():
            log.warning("the database hangs; about %d predictions are lost", self._queue.qsize())
        self._target.close()

    def _work(self) -> None:
        while not (self._stopping.is_set() and self._queue.empty()):
            if batch := self._gather():
                self._append(batch)

    def _gather(self) -> list[Prediction]:
        if self._queue.qsize() < _BATCH:
            self._stopping.wait(_GATHER_SECONDS)
        return [self._queue.get_nowait() for _ in range(min(_BATCH, self._queue.qsize()))]

    def _append(self, batch: list[Prediction]) -> None:
        """Try until the batch is written, or until it is time to end."""
        for delay in chain(_RETRY_SECONDS, repeat(_RETRY_SECONDS[-1])):
            if time.monotonic() >= self._deadline:
                self._lose(len(batch))
                return
            try:
                self._target.append(batch)
                self.written += len(batch)
                return
            except ServiceError as error:
                waiting = len(batch) + self._queue.qsize()
                log.warning("%s (%d predictions wait, %d lost)", error, waiting, self.lost)
            if not self._stopping.wait(delay):
                continue
            time.sleep(_RETRY_SECONDS[0])  # stopping: try again soon, until the deadline

    def _lose(self, count: int) -> None:
        with self._lock:
            first, self.lost = self.lost == 0, self.lost + count
        if first or self._stopping.is_set():
            log.warning("the prediction log cannot keep up; %d predictions are lost", self.lost)
