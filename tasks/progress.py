"""How far a long job is: a live bar on a terminal, a log line every few seconds elsewhere."""

import logging
import sys
import time
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_REPORT_SECONDS = 5.0

log = logging.getLogger(__name__)


class Progress:
    """Counts what is done of `total` and shows rate and time left; a context manager.

    `done` of them were before; without a terminal there is a log line every `seconds`. The last
    one, with the rate of the whole, is written on a terminal too.
    """

    def __init__(
        self, what: str, total: int, done: int = 0, seconds: float = _REPORT_SECONDS
    ) -> None:
        self._what, self._total, self._done, self._before = what, total, done, done
        self._seconds = seconds
        self._start = self._reported = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if self._total and sys.stderr.isatty():
            self._bar = _bar()
        if self._bar is not None:
            self._bar.add_task(self._what, total=self._total, completed=self._done)
            before = sys.stderr
            self._bar.start()  # puts itself in the place of standard error
            _move_log_lines(before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            before = sys.stderr
            self._bar.stop()
            _move_log_lines(before)

    def add(self, count: int) -> None:
        """`count` more are done; fewer than none: that many are to be done again."""
        self._done += count
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)
        now = time.monotonic()
        due = self._bar is None and now - self._reported >= self._seconds
        if self._done == self._total or due:
            self._reported = now
            log.info("%s %d of %d (%s)", self._what, self._done, self._total, self._pace(now))

    def _pace(self, now: float) -> str:
        rate = (self._done - self._before) / max(now - self._start, 1e-6)
        left = round((self._total - self._done) / max(rate, 1e-6))
        return f"{rate:.0f}/s" + (f", {left // 60}:{left % 60:02d} left" if left else "")


def _move_log_lines(before: TextIO) -> None:
    """What is logged to `before` goes to today's standard error: above a bar, not into it."""
    for handler in logging.root.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(sys.stderr)


def _bar() -> "Bar | None":
    """A bar on standard error; None where rich is not installed."""
    if find_spec("rich") is None:
        return None
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:.0f}/s")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
