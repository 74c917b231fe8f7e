"""`visionloop up`: starts the real servers, says where they are, and leaves no process behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from flows.processes import MARK, clear_earlier, running, state_file, write_state
from flows.services import services
from tasks.errors import ServiceError
from tasks.params import load_settings
from tasks.ports import free_port, holder, is_free

ROOT = Path(__file__).parents[2]
START_SECONDS = 400


@pytest.fixture
def settings(repository):
    return load_settings()


@pytest.fixture
def listening(settings):
    with socket.socket() as held:
        held.bind(("127.0.0.1", settings.port))
        held.listen()
        yield settings.port


def test_a_port_in_use_is_named_with_its_process_and_the_way_to_change_it(
    visionloop, listening, settings
):
    result = visionloop("up")
    assert result.exit_code == 2
    assert f"port {listening} (Model server) is held by" in result.stderr
    assert f"(pid {os.getpid()}, " in result.stderr
    assert f"VISIONLOOP_PORT={listening + 1} visionloop up" in result.stderr
    assert not state_file(settings).exists()


def test_ports_and_their_holders(listening):
    assert not is_free("127.0.0.1", listening)
    assert f"pid {os.getpid()}" in holder(listening)
    assert is_free("127.0.0.1", free_port())


def test_wrong_parameters_stop_it_before_anything_starts(visionloop, repository):
    path = repository / "conf" / "params.yaml"
    path.write_text(path.read_text().replace("max_batch:", "max_bach:"))
    result = visionloop("up")
    assert result.exit_code == 2
    assert "did you mean 'serve.max_batch'?" in result.stderr


def test_an_address_elsewhere_is_not_ours_to_start(settings, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    prefect, mlflow, model = services(load_settings())
    assert (prefect.local, mlflow.local, model.local) == (True, False, True)
    assert mlflow.port == 443
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlflow.example.com")
    with pytest.raises(ServiceError, match="MLFLOW_TRACKING_URI is 'mlflow"):
        services(load_settings())


def test_the_default_prefect_address_is_that_of_pyproject(settings, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL")
    assert services(settings)[0].url == "http://127.0.0.1:4200"


def _marked_sleeper(mark):
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    sleeper = subprocess.Popen(
        command, env={**os.environ, MARK: mark}, start_new_session=True, stdout=subprocess.PIPE
    )
    sleeper.stdout.readline()
    return sleeper


def test_what_a_killed_up_left_behind_is_ended(settings):
    ours, other = _marked_sleeper("mark-1"), _marked_sleeper("mark-2")
    try:
        write_state(settings, "mark-1", {}, {})
        state = json.loads(state_file(settings).read_text())
        state_file(settings).write_text(json.dumps({**state, "created": 1.0}))  # its pid is reused
        assert running(settings) is None
        clear_earlier(settings)
        ours.wait(10)
        assert not psutil.pid_exists(ours.pid)
        assert other.poll() is None
        assert not state_file(settings).exists()
    finally:
        ours.kill()
        other.kill()
        ours.wait()
        other.wait()


def test_a_second_up_on_the_same_home_is_refused(visionloop, settings):
    write_state(settings, "mark", {}, {})
    result = visionloop("up")
    assert result.exit_code == 2
    assert f"already runs here (pid {os.getpid()})" in result.stderr
    assert state_file(settings).exists()


class Up:
    """A real `visionloop up` in the repository's own code, on free ports and a home of its own."""

    def __init__(self, output: Path) -> None:
        self.output = output
        with open(output, "wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "up"],
                cwd=ROOT,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, text: str) -> str:
        deadline = time.monotonic() + START_SECONDS
        while text not in (said := self.output.read_text()):
            assert self.process.poll() is None, f"ended before saying {text!r}:\n{said}"
            assert time.monotonic() < deadline, f"never said {text!r}:\n{said}"
            time.sleep(0.2)
        return said

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def up(settings, tmp_path):
    started = Up(tmp_path / "up.log")
    yield started
    if started.process.poll() is None:
        started.process.terminate()
    started.process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_start_say_where_they_are_and_stop_together(up, settings, visionloop):
    said = up.wait_for("Visionloop is up")
    up.wait_for("Ctrl-C stops all")
    said = up.output.read_text()
    prefect, mlflow, model = services(settings)
    for url in (prefect.url, mlflow.url, model.url, f"{model.url}/docs"):
        assert url in said
        assert httpx.get(url).status_code == 200 or url == model.url
    found = httpx.post(f"{prefect.url}/api/deployments/filter", json={}).json()
    assert {"default", "nightly"} <= {deployment["name"] for deployment in found}

    status = json.loads(visionloop("status", "--json").output)
    assert status["supervised"] is True
    assert all(address["answers"] for address in status["addresses"].values())
    family = up.family()
    assert {json.loads(state_file(settings).read_text())["pid"]} == {up.process.pid}
    assert settings.home / "prefect.db" in settings.home.iterdir()

    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 130
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert not state_file(settings).exists()
    for server in (prefect, mlflow, model):
        assert is_free(server.host, server.port)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_that_dies_stops_all_with_its_name(up, settings):
    up.wait_for("logs are in")
    family = up.family()
    state = json.loads(state_file(settings).read_text())
    os.kill(state["processes"]["forwarder"], signal.SIGKILL)
    assert up.process.wait(60) == 2
    said = up.output.read_text()
    assert "error: forwarder stopped (exit code -9)" in said
    assert "forwarder.log" in said
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
