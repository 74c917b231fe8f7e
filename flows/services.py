"""The three servers of a Visionloop machine, and where they are.

Addresses come from the environment, and Prefect's from `[tool.prefect]` in pyproject.toml,
so that `prefect …` in the repository and Visionloop always mean the same server.
"""

import os
import tomllib
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from tasks.errors import ServiceError
from tasks.params import Settings

_HERE = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104 - compared, not bound
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Service:
    """A server: what to open, what answers 200 when it is up, and what moves it elsewhere."""

    name: str
    url: str
    health: str
    host: str
    port: int
    move: str

    @property
    def local(self) -> bool:
        """Whether it is this machine's to start."""
        return self.host in _HERE

    def answers(self, timeout: float = 1.0) -> bool:
        """Whether the server is up; never raises."""
        try:
            return httpx.get(self.health, timeout=timeout, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


def prefect_api_url() -> str:
    """PREFECT_API_URL, or the address in pyproject.toml of the current directory."""
    if address := os.environ.get("PREFECT_API_URL"):
        return address.rstrip("/")
    try:
        with open("pyproject.toml", "rb") as stream:
            return str(tomllib.load(stream)["tool"]["prefect"]["api"]["url"]).rstrip("/")
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise ServiceError(
            "no address of the Prefect server: set PREFECT_API_URL, "
            "or api.url under [tool.prefect] in pyproject.toml"
        ) from None


def services(settings: Settings) -> tuple[Service, Service, Service]:
    """Prefect, MLflow and the model server, in the order in which they start."""
    api, mlflow = prefect_api_url(), settings.tracking_uri.rstrip("/")
    host = "127.0.0.1" if settings.host in _HERE else settings.host
    model = f"http://{host}:{settings.port}"
    return (
        _service("Prefect", api.removesuffix("/api"), f"{api}/health", "PREFECT_API_URL", "/api"),
        _service("MLflow", mlflow, f"{mlflow}/health", "MLFLOW_TRACKING_URI", ""),
        Service(
            "Model server",
            model,
            f"{model}/health/live",
            settings.host,
            settings.port,
            f"VISIONLOOP_PORT={settings.port + 1}",
        ),
    )


def _service(name: str, url: str, health: str, variable: str, suffix: str) -> Service:
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or parts.hostname is None:
        raise ServiceError(f"{variable} is {url!r}, not an http:// address of a {name} server")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    move = f"{variable}={parts.scheme}://{parts.hostname}:{port + 1}{suffix}"
    return Service(name, url, health, parts.hostname, port, move)
