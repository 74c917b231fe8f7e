"""Runs the application under uvicorn on the address of the settings."""

import errno
import logging
import socket

import uvicorn

from tasks.errors import ServiceError
from tasks.params import Settings
from tasks.ports import holder
from tasks.schema import Params
from tasks.serving.app import create_app

_SHUTDOWN_SECONDS = 20  # for requests in flight; the prediction log is written after them

log = logging.getLogger(__name__)


def serve(settings: Settings, params: Params) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish requests and write the prediction log.

    Raises ServiceError when the address cannot be had, naming who holds the port.
    """
    listening = listen(settings.host, settings.port)
    app = create_app(settings, params.serve)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=_SHUTDOWN_SECONDS
    )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("serving on http://%s:%d", shown, port)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        log.info("stopped")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises ServiceError with the way out."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        raise ServiceError(_explain(error, host, port)) from None
    return listening


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is held by {holder(port)}; set VISIONLOOP_PORT to another"
    if error.errno == errno.EACCES:
        return (
            f"port {port} needs more rights than this user has; set VISIONLOOP_PORT to 1024 or more"
        )
    return f"cannot listen on {host}:{port}: {error}; set VISIONLOOP_HOST and VISIONLOOP_PORT"
