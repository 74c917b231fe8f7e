"""The connection to MLflow: known to work or not within seconds, its errors in our words."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import httpx

from tasks.errors import ServiceError
from tasks.params import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME = EXPERIMENT = "visionloop"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Answer = Literal["mlflow", "nothing", "other"]
# A dead address is given up after `connect`; a busy server may take its time to answer.
_TIMEOUT = httpx.Timeout(10, connect=2)
# MLflow's own defaults retry an unreachable server for four minutes, report usage to its
# makers, and print addresses and progress bars among a flow's log lines.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs a line for every poll


def connect(settings: Settings) -> "MlflowClient":
    """A client of the configured server, which was there a moment ago; raises ServiceError."""
    answer = probe(settings.tracking_uri)
    if answer == "nothing":
        raise ServiceError(unreachable(settings.tracking_uri))
    if answer == "other":
        raise ServiceError(
            f"what answers at {settings.tracking_uri} is not MLflow; set MLFLOW_TRACKING_URI to "
            "the address of an MLflow server"
        )
    configure()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def configure() -> None:
    """Set MLflow's environment for this process; the user's own settings stay."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"


def probe(uri: str) -> Answer:
    """What answers at an address: MLflow, nothing, or something else. Takes 10 s at most."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ServiceError(
            f"MLFLOW_TRACKING_URI is {uri!r}; it must be the http:// or https:// address of an "
            "MLflow server"
        )
    try:
        # A proxy from the environment is for the world outside, not for this machine.
        response = httpx.get(
            f"{uri.rstrip('/')}/version",
            timeout=_TIMEOUT,
            trust_env=parts.hostname not in LOOPBACK,
        )
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return "nothing"
    except httpx.HTTPError:
        return "other"
    if response.status_code in (401, 403):  # MLflow behind a login: its client has the credentials
        return "mlflow"
    is_version = re.fullmatch(r"\d+\.\d+[\w.+-]*", response.text.strip())
    return "mlflow" if response.status_code == 200 and is_version else "other"


def unreachable(uri: str) -> str:
    """The message for a server that does not answer."""
    return (
        f"MLflow does not answer at {uri}; start it with `make up`, or set MLFLOW_TRACKING_URI "
        "to the server in use. Recorded runs are kept and forwarded when it is back"
    )


@contextmanager
def mlflow_errors(settings: Settings) -> Iterator[None]:
    """Turn MLflow's and the network's exceptions into ServiceError naming the address."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        if probe(settings.tracking_uri) == "nothing":
            raise ServiceError(unreachable(settings.tracking_uri)) from error
        first_line = (str(error).splitlines() or [""])[0]
        raise ServiceError(f"MLflow at {settings.tracking_uri} refused: {first_line}") from error
