"""Forwards the outbox of recorded runs to MLflow: once, or following it while runs go on.

`python -m tasks.registry.sync [--follow]`. One forwarder at a time per home; a restart goes on
where the last one stopped.
"""

import logging
import signal
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from tasks.errors import ServiceError
from tasks.locks import held
from tasks.params import Settings, load_settings
from tasks.registry.connection import connect, mlflow_errors
from tasks.registry.forward import Forwarder
from tasks.registry.ledger import runs
from tasks.step import run_process
from tasks.tracking import EVENTS, outbox

LOCK_SECONDS = 60.0
log = logging.getLogger(__name__)


def sync_all(settings: Settings, lock_seconds: float = LOCK_SECONDS) -> int:
    """Send MLflow what it lacks of every recorded run; gives the number of events sent.

    Raises ServiceError when MLflow is not there or another forwarder holds the outbox for
    longer than `lock_seconds`. What was sent before an error is not sent again.
    """
    client = connect(settings)
    with _exclusive(settings, lock_seconds), mlflow_errors(settings):
        forwarder = Forwarder(client)
        return sum(forwarder.forward(directory) for directory in runs(settings))


def run_id_of(key: str, settings: Settings) -> str | None:
    """The MLflow run of a run key: recorded here, or by another machine; None if neither."""
    client = connect(settings)
    with _exclusive(settings, LOCK_SECONDS), mlflow_errors(settings):
        forwarder = Forwarder(client)
        return forwarder.run_id(outbox(settings) / key) or forwarder.find(key)


def follow(settings: Settings, stop: threading.Event, interval: float = 2.0) -> None:
    """Forward every `interval` seconds until `stop` is set, and once more then.

    For a thread beside a running flow: it never raises for a missing server but goes on
    trying, and does nothing while nothing was recorded.
    """
    sizes: dict[Path, int] = {}
    while True:
        last = stop.wait(interval)
        seen = _sizes(settings)
        if seen != sizes and _try_sync(settings):
            sizes = seen
        if last:
            return


def main() -> None:
    """Forward once, or with --follow until SIGINT or SIGTERM."""
    settings = load_settings()
    if "--follow" not in sys.argv[1:]:
        log.info("%d events forwarded to %s", sync_all(settings), settings.tracking_uri)
        return
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    follow(settings, stop)


def _try_sync(settings: Settings) -> bool:
    try:
        sync_all(settings, lock_seconds=0)
    except ServiceError as error:
        log.debug("not forwarded yet: %s", error)
        return False
    except Exception:  # a live view must never end what it watches; the next event tries again
        log.warning("recorded runs could not be forwarded", exc_info=True)
    return True


def _sizes(settings: Settings) -> dict[Path, int]:
    return {directory: (directory / EVENTS).stat().st_size for directory in runs(settings)}


def _exclusive(settings: Settings, seconds: float) -> AbstractContextManager[None]:
    what = "another process is forwarding runs to MLflow"
    return held(outbox(settings) / ".forward.lock", seconds, what)


if __name__ == "__main__":
    run_process(main)
