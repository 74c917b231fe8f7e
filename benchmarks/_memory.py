"""The highest memory of this process with those it started, sampled."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

_SECONDS = 0.05


class Memory:
    """What was seen; `peak_mb` in megabytes."""

    peak_mb = 0.0

    def look(self) -> None:
        own = psutil.Process()
        total = 0
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.Error):
                # memory of its own: pages that several processes map are counted once, roughly
                total += process.memory_full_info().pss
        self.peak_mb = max(self.peak_mb, total / 1e6)


@contextmanager
def peak_of() -> Iterator[Memory]:
    """Watch the memory inside the block."""
    memory, stop = Memory(), threading.Event()

    def watch() -> None:
        while not stop.wait(_SECONDS):
            memory.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()
        memory.look()
