"""`optuna-dashboard`, as docs/training.md says to start it, on both kinds of storage."""

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from tasks.params import Settings
from tasks.ports import free_port
from tasks.training.storage import place_of
from tasks.training.study import run_study
from tests.training.test_search import CURRENT, Function, tune


@pytest.mark.parametrize("kind", ["journal", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_the_dashboard_shows_a_study(
    kind: str, request: pytest.FixtureRequest, settings: Settings, tmp_path: Path
):
    if kind == "journal":
        address = str(settings.home / "studies/tune-1.log")
    else:
        address = str(request.getfixturevalue("postgres_url"))
        settings = settings.model_copy(update={"study_storage": SecretStr(address)})
    run_study(place_of("tune-1", settings), tune(trials=5), CURRENT, Function())
    port = free_port()
    command = [str(Path(sys.prefix) / "bin/optuna-dashboard"), address, "--port", str(port)]
    with open(tmp_path / "log", "wb") as log:
        dashboard = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        (study,) = _studies(port, dashboard, tmp_path / "log")
        assert study["study_name"] == "tune-1"
        page = f"http://127.0.0.1:{port}/api/studies/{study['study_id']}"
        shown = httpx.get(page, params={"after": 0}, timeout=30).json()
        assert [trial["state"] for trial in shown["trials"]] == ["Complete"] * 5
        assert shown["objective_names"] == ["loss"]
    finally:
        dashboard.terminate()
        dashboard.wait()


def _studies(port: int, process: "subprocess.Popen[bytes]", log: Path) -> list[dict[str, object]]:
    deadline = time.monotonic() + 100
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/studies", timeout=30)
            found: list[dict[str, object]] = answer.raise_for_status().json()["study_summaries"]
            return found
        except httpx.TransportError:
            time.sleep(0.5)
