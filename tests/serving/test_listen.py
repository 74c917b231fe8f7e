"""Addresses that cannot be had: the message names who is in the way, and the way out."""

import os
import socket

import pytest

from tasks.errors import ServiceError
from tasks.serving.server import listen


def test_a_port_in_use_is_explained() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port} on 127.0.0.1 is held by") as raised:
            listen("127.0.0.1", port)
    assert f"pid {os.getpid()}" in str(raised.value)
    assert "VISIONLOOP_PORT" in str(raised.value)


def test_a_wrong_host_is_explained() -> None:
    with pytest.raises(ServiceError, match=r"203\.0\.113\.1.*VISIONLOOP_HOST"):
        listen("203.0.113.1", 0)
