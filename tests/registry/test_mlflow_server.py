"""A private MLflow server comes when none runs, and goes with the process that asked for it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tasks.errors import ServiceError
from tasks.params import Settings
from tasks.ports import free_port
from tasks.registry import server
from tasks.registry.connection import probe
from tasks.registry.server import mlflow_server_command, public_address, temporary_server

pytestmark = pytest.mark.timeout(280)

HOLD = """
import sys
from pathlib import Path
from tasks.params import Settings
from tasks.registry import server

server.DEFAULT_URI = sys.argv[2]
settings = Settings(home=Path(sys.argv[1]), MLFLOW_TRACKING_URI=sys.argv[2])
with server.temporary_server(settings) as private:
    print(private.tracking_uri, server.public_address(private), flush=True)
    sys.stdin.readline()
print("left", flush=True)
"""


def _hold(home: Path, default: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, str(home), default]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _gone(address: str) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if probe(address) == "nothing":
            return True
        time.sleep(0.2)
    return False


def test_private_servers_share_a_store_and_end_with_their_process(tmp_path: Path) -> None:
    default = f"http://127.0.0.1:{free_port()}"
    first, second = _hold(tmp_path, default), _hold(tmp_path, default)  # at once, one store
    try:
        addresses = []
        for process in (first, second):
            private, public = process.stdout.readline().split()
            assert public == default
            addresses.append(private)
        created = httpx.post(
            f"{addresses[0]}/api/2.0/mlflow/experiments/create", json={"name": "shared"}
        )
        assert created.status_code == 200
        found = httpx.get(
            f"{addresses[1]}/api/2.0/mlflow/experiments/get-by-name?experiment_name=shared"
        )
        assert found.json()["experiment"]["experiment_id"] == created.json()["experiment_id"]

        first.stdin.write("\n")
        first.stdin.flush()
        assert first.stdout.readline() == "left\n"
        assert probe(addresses[0]) == "nothing"
        assert first.wait(60) == 0

        second.send_signal(signal.SIGKILL)
        assert _gone(addresses[1])
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_a_store_that_cannot_be_opened_is_told_with_the_servers_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(server, "DEFAULT_URI", default)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"this is no database" * 100)
    settings = Settings(home=tmp_path, MLFLOW_TRACKING_URI=default)
    with (
        pytest.raises(ServiceError, match="file is not a database"),
        temporary_server(settings),
    ):
        pass


def test_a_server_that_answers_is_used_as_it_is(settings: Settings) -> None:
    with temporary_server(settings) as used:
        assert used is settings
    assert public_address(settings) == settings.tracking_uri


def test_something_else_on_the_port_is_named(tmp_path: Path) -> None:
    page = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = int(page.stdout.readline().split(" port ")[1].split()[0])
        settings = Settings(home=tmp_path, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
        with (
            pytest.raises(ServiceError, match=rf"port {port} .*\(pid {page.pid},"),
            temporary_server(settings),
        ):
            pass
    finally:
        page.terminate()
        page.wait()


def test_another_address_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServiceError, match="does not answer"), temporary_server(settings):
        pass
    assert not (tmp_path / "mlflow").exists()


def test_the_command_serves_the_store_of_the_home(tmp_path: Path) -> None:
    command = mlflow_server_command(Settings(home=tmp_path / "a b"), "127.0.0.1", 5007)
    assert f"sqlite:///{tmp_path}/a b/mlflow/mlflow.db" in command
    assert command[command.index("--port") + 1] == "5007"


def test_a_first_start_killed_while_it_makes_the_database_is_made_up_for(tmp_path: Path) -> None:
    """MLflow's own first start, cut off in its migrations, would never start again."""
    settings = Settings(home=tmp_path)
    code = "from tasks.params import Settings\nfrom tasks.registry.store import prepare_store\n"
    code += f"prepare_store(Settings(home={str(tmp_path)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code])
    store = tmp_path / "mlflow"
    while not any(file.stat().st_size > 50_000 for file in store.glob(".mlflow.db.*.tmp")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (store / "mlflow.db").exists()
    with temporary_server(settings) as reachable:
        assert probe(reachable.tracking_uri) == "mlflow"
    assert not list(store.glob(".mlflow.db.*"))
