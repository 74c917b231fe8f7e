"""The MLflow server of a machine: how to start it, and a private one when none runs.

Runs, versions and artifacts live in <home>/mlflow. A private server serves the same store on
a free port for the length of a block, so that nothing need be running to train and promote.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tasks.errors import ServiceError
from tasks.params import Settings
from tasks.ports import free_port, holder
from tasks.registry.connection import LOOPBACK, probe, unreachable
from tasks.registry.store import DATABASE, prepare_store

DEFAULT_URI: str = Settings.model_fields["tracking_uri"].default
START_SECONDS = 240.0
_STOP_SECONDS = 15.0
# Our process holds the other end of the shell's standard input: however it ends, SIGKILL
# included, the input ends too and the server is stopped.
_GUARD = 'exec 3<&0; "$@" 3<&- & pid=$!; (cat <&3 >/dev/null; kill -TERM $pid) & wait $pid'
_private: dict[str, str] = {}  # address of a private server -> address it stands in for
log = logging.getLogger(__name__)


def mlflow_server_command(settings: Settings, host: str, port: int) -> list[str]:
    """The command that serves <home>/mlflow on host:port: SQLite, artifacts proxied.

    MLflow answers requests for local and private addresses only; for others the operator sets
    MLFLOW_SERVER_ALLOWED_HOSTS. Its job runner (seven idle processes for features we do not
    use) and its usage reports are off.
    """
    store = prepare_store(settings)
    environment = ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true"]
    command = ["env", *environment, sys.executable, "-m", "mlflow", "server"]
    command += ["--backend-store-uri", f"sqlite:///{store / DATABASE}"]
    command += ["--artifacts-destination", str(store / "artifacts"), "--serve-artifacts"]
    return [*command, "--host", host, "--port", str(port), "--workers", "1"]


@contextmanager
def temporary_server(settings: Settings) -> Iterator[Settings]:
    """Settings whose MLflow answers: the configured server, else a private one for the block.

    A private one is started when the address is the default and nothing listens there. Raises
    ServiceError when something else listens, or when another address does not answer.
    """
    answer = probe(settings.tracking_uri)
    if answer == "mlflow":
        yield settings
    elif answer == "other":
        raise ServiceError(_occupied(settings.tracking_uri))
    elif settings.tracking_uri.rstrip("/") != DEFAULT_URI:
        raise ServiceError(unreachable(settings.tracking_uri))
    else:
        with _private_server(settings) as address:
            yield settings.model_copy(update={"tracking_uri": address})


def public_address(settings: Settings) -> str:
    """The address for links: a private server's will be gone when they are followed."""
    return _private.get(settings.tracking_uri, settings.tracking_uri).rstrip("/")


def wait_until_ready(
    uri: str, seconds: float = START_SECONDS, process: "subprocess.Popen[bytes] | None" = None
) -> None:
    """Return once MLflow answers at `uri`; raises ServiceError at the time limit.

    With the server's `process`, its early end is an error at once.
    """
    deadline = time.monotonic() + seconds
    while probe(uri) != "mlflow":
        if process is not None and process.poll() is not None:
            raise ServiceError(f"the MLflow server stopped with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise ServiceError(f"MLflow does not answer at {uri} after {seconds:.0f} s")
        time.sleep(0.1)


@contextmanager
def _private_server(settings: Settings) -> Iterator[str]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log.info("no MLflow server at %s; starting a private one", settings.tracking_uri)
    command = mlflow_server_command(settings, "127.0.0.1", port)
    journal = settings.home / "mlflow" / "private-server.log"
    process = _start(command, journal)
    try:
        wait_until_ready(address, process=process)
    except ServiceError as error:
        _stop(process)
        raise ServiceError(f"{error}; its last lines ({journal}):\n{_tail(journal)}") from None
    except BaseException:
        _stop(process)
        raise
    _private[address] = settings.tracking_uri
    try:
        yield address
    finally:
        del _private[address]
        _stop(process)


def _start(command: list[str], journal: Path) -> "subprocess.Popen[bytes]":
    with open(journal, "wb") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to handle; the server ends with the block
        )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("the private MLflow server (pid %d) did not stop; killing it", process.pid)
    # The session is the server's own: whatever is left of it goes too.
    if _alive(process.pid):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _tail(journal: Path, lines: int = 10) -> str:
    return "\n".join(journal.read_text(errors="replace").splitlines()[-lines:])


def _occupied(uri: str) -> str:
    parts = urlsplit(uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    held_by = f", held by {holder(port)}," if parts.hostname in LOOPBACK else ""
    return (
        f"port {port} of {uri}{held_by} does not answer as MLflow; stop what listens there, or set "
        f"MLFLOW_TRACKING_URI (for example http://127.0.0.1:{port + 1} with `make up`)"
    )
