"""The real server process: releases swapped under load, shutdown, broken releases, ports."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from tasks import releases
from tasks.params import Settings
from tasks.predictions import open_log

START = (
    "from tasks.params import load_params, load_settings\n"
    "from tasks.serving.server import serve\n"
    "from tasks.step import configure_logging\n"
    "configure_logging()\n"
    "serve(load_settings(), load_params())\n"
)


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this took too long"
        time.sleep(0.05)


class Server:
    """A server process on a free port, with its log."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.log_file = home.parent / "server.log"
        variables = os.environ | {"VISIONLOOP_HOME": str(home), "VISIONLOOP_PORT": "0"}
        with self.log_file.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START], stderr=stream, env=variables | environment
            )
        wait_until(lambda: self.process.poll() is not None or "serving on" in self.log)
        found = re.search(r"serving on (http://\S+)", self.log)
        assert found, self.log
        self.client = httpx.Client(base_url=found[1], timeout=60)
        wait_until(self.answers)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return self.client.get("/health/live").status_code == 200
        except httpx.TransportError:
            return False

    def version(self) -> int | None:
        return self.client.get("/health/ready").json()["model_version"]

    def predict(self, *images: bytes) -> httpx.Response:
        files = [("file", (f"{n}.png", image)) for n, image in enumerate(images)]
        return self.client.post("/v1/predict", files=files)

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(**environment: str) -> Server:
        servers.append(Server(settings.home, **environment))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


@contextmanager
def load(server: Server, images: list[bytes], expected: dict[int, np.ndarray]) -> Iterator[list]:
    """Eight clients that ask without pause; yields the list of what went wrong, or was answered."""
    over = threading.Event()
    outcomes: list[tuple[int, str]] = []

    def ask(number: int) -> None:
        while not over.is_set():
            response = server.predict(images[number])
            if response.status_code != 200:
                outcomes.append((response.status_code, response.text))
                continue
            answer = response.json()
            probability = answer["predictions"][0]["probability"]
            right = abs(probability - expected[answer["model_version"]][number]) < 1e-5
            outcomes.append((answer["model_version"], "" if right else f"{number}: {answer}"))

    with ThreadPoolExecutor(8) as clients:
        asking = [clients.submit(ask, number) for number in range(8)]
        try:
            yield outcomes
        finally:
            over.set()
        for client in asking:
            client.result()


def test_no_request_fails_while_releases_change(
    start, settings, make_bundle, digit_images, png
) -> None:
    """Promoted and rolled back under load: each answer is right for the version it names."""
    bundles = {1: make_bundle(0.1, "one"), 2: make_bundle(0.0001, "two")}
    chosen = digit_images[1200:1208]
    expected = {
        version: bundle.predict(chosen)[0].max(axis=1) for version, bundle in bundles.items()
    }
    assert (np.abs(expected[1] - expected[2]) > 0.01).all()
    releases.publish(bundles[1], 1, settings)
    server = start()
    images = [png(image) for image in chosen]
    with load(server, images, expected) as outcomes:
        for version in (2, 1, 2, 1):
            releases.publish(bundles[version], version, settings)
            wait_until(lambda version=version: server.version() == version)
        wait_until(lambda: len(outcomes) >= 300)
    assert {told for _, told in outcomes} == {""}
    assert {version for version, _ in outcomes} == {1, 2}
    server.stop()
    assert open_log(settings.predictions_url).count() == len(outcomes)


def test_a_broken_release_changes_nothing(start, settings, make_bundle, digit_images, png) -> None:
    good, bad = make_bundle(0.1, "good"), make_bundle(0.01, "bad")
    releases.publish(good, 1, settings)
    server = start()
    target = releases.publish(bad, 2, settings).path
    releases.publish(good, 1, settings)
    with (target / "model.onnx").open("ab") as stream:
        stream.write(b"altered")
    link = settings.releases / "current"
    link.unlink()
    link.symlink_to(target.name)
    wait_until(lambda: server.client.get("/v1/model").json()["refused"])
    card = server.client.get("/v1/model").json()
    assert card["model_version"] == 1
    assert card["refused"]["version"] == 2
    assert "model.onnx" in card["refused"]["reason"]
    assert server.client.get("/health/ready").status_code == 200
    assert server.predict(png(digit_images[0])).json()["model_version"] == 1
    assert "release refused, still serving version 1" in server.log
    releases.publish(good, 1, settings)
    wait_until(lambda: server.client.get("/v1/model").json()["refused"] is None)


def test_serves_the_first_release_when_it_comes(start, settings, digits_bundle) -> None:
    server = start()
    assert server.client.get("/health/ready").status_code == 503
    releases.publish(digits_bundle, 1, settings)
    wait_until(lambda: server.version() == 1)


def test_sigterm_writes_the_predictions_that_wait(
    start, settings, digits_bundle, digit_images, png
) -> None:
    releases.publish(digits_bundle, 1, settings)
    server = start()
    for _ in range(3):
        assert server.predict(*[png(image) for image in digit_images[:40]]).status_code == 200
    server.stop()
    assert open_log(settings.predictions_url).count() == 120


def test_answers_while_the_database_is_away(
    start, settings, digits_bundle, digit_images, png
) -> None:
    releases.publish(digits_bundle, 1, settings)
    server = start(VISIONLOOP_DATABASE_URL="postgresql://me:secret@127.0.0.1:1/visionloop")
    assert server.predict(png(digit_images[0])).status_code == 200
    wait_until(lambda: "1 predictions wait" in server.log)
    server.stop()
    assert "1 predictions are lost" in server.log
    assert "secret" not in server.log


@pytest.mark.postgres
def test_logs_to_postgresql(
    start, postgres_url, settings, digits_bundle, digit_images, png
) -> None:
    releases.publish(digits_bundle, 5, settings)
    server = start(VISIONLOOP_DATABASE_URL=postgres_url)
    assert server.predict(*[png(image) for image in digit_images[:10]]).status_code == 200
    server.stop()
    assert open_log(postgres_url).count(model_version=5) == 10


def test_a_body_without_a_length_is_cut_at_the_limit(start, settings, digits_bundle) -> None:
    """A client that states no length and never ends is answered, and not read to the end."""
    releases.publish(digits_bundle, 1, settings)
    server = start()
    url = server.client.base_url
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: {url.host}\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=cut\r\n\r\n"
    )
    part = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
    chunk = bytes(1_000_000)
    sent = 0
    with socket.create_connection((url.host, url.port), timeout=60) as connection:
        connection.sendall(head.encode() + f"{len(part):x}\r\n".encode() + part + b"\r\n")
        connection.setblocking(False)
        answer, left = b"", b""
        while not answer and sent < 500_000_000:
            left = left or f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
            try:
                count = connection.send(left)
                sent, left = sent + count, left[count:]
            except BlockingIOError:
                time.sleep(0.005)
            try:
                answer = connection.recv(65536)
            except BlockingIOError:
                answer = b""
        connection.settimeout(30)
        while b"20 MB" not in answer and (more := connection.recv(65536)):
            answer += more  # the head may come in a piece of its own
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"20 MB" in answer
    assert sent < 100_000_000


def test_memory_of_uploads_is_given_back(start, settings, digits_bundle, png) -> None:
    """Photographs of 6 MB pass through, and the process does not grow by them."""
    import psutil

    releases.publish(digits_bundle, 1, settings)
    server = start()
    photo = png(np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), np.uint8))
    process = psutil.Process(server.process.pid)
    for _ in range(5):
        assert server.predict(photo).status_code == 200
    before = process.memory_info().rss
    for _ in range(25):
        assert server.predict(photo).status_code == 200
    assert process.memory_info().rss - before < 60_000_000
