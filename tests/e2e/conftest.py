"""A clone of the product in an empty folder, used as a user uses it: by its commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix) / "bin"
START_SECONDS = 180

# The quickstart with a shorter training: every step runs, in about a minute.
SHORT = {
    "tune.trials": 2,
    "tune.epochs": 2,
    "train.epochs": 8,
    "compress.distil.epochs": 4,
    "compress.prune.epochs": 2,
    "compress.latency_runs": 30,
    "compress.openvino": False,
    "compress.gpu": False,
    "budget.max_accuracy_drop": 0.05,
    "budget.min_agreement": 0.9,
    "evaluate.resamples": 500,
}


@dataclass(frozen=True)
class Clone:
    """A clone of the repository and the environment its commands run in."""

    root: Path
    env: Mapping[str, str]

    def run(self, *command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's commands in the clone."""
        program = str(BIN / command[0]) if (BIN / command[0]).exists() else command[0]
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.root,
            env=dict(self.env),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def check(self, *command: str, timeout: float = 600) -> str:
        """As `run`; the test fails with the output when the command does."""
        done = self.run(*command, timeout=timeout)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def json(self, *command: str, timeout: float = 600) -> dict[str, Any]:
        """The JSON that a command prints."""
        value: dict[str, Any] = json.loads(self.check(*command, timeout=timeout))
        return value

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a long-running command, its output in `log`."""
        with open(log, "wb") as stream:
            return subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=self.root,
                env=dict(self.env),
                stdout=stream,
                stderr=subprocess.STDOUT,
            )


def make_clone(root: Path, overrides: Mapping[str, object]) -> Clone:
    """Copy what git has (and what is about to be added), with the quickstart's parameters.

    What a user's own runs left in the tree (dvc.lock, another params.yaml) stays behind.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    shutil.copy2(root / "conf" / "presets" / "quickstart.yaml", root / "conf" / "params.yaml")
    set_params(root, overrides)
    ours = ("VISIONLOOP_", "PREFECT_", "MLFLOW_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    clone = Clone(root, {**env, "PREFECT_HOME": str(root / ".visionloop" / "prefect")})
    for command in (
        ("git", "init", "-q"),
        ("git", "add", "-A"),
        ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "clone"),
    ):
        clone.check(*command)
    return clone


def set_params(root: Path, overrides: Mapping[str, object]) -> None:
    from ruamel.yaml import YAML

    from tasks.params import apply_overrides, read_yaml

    path = root / "conf" / "params.yaml"
    values = apply_overrides(read_yaml(path), overrides)
    with open(path, "w", encoding="utf-8") as stream:
        YAML().dump(values, stream)


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A fresh clone with the short parameters; nothing has run in it."""
    return make_clone(tmp_path_factory.mktemp("clone"), SHORT)


@pytest.fixture(scope="session")
def first_run(clone: Clone) -> dict[str, Any]:
    """What the first `visionloop run --json` in the clone said, with no server running."""
    return clone.json("visionloop", "run", "--json", timeout=900)


@dataclass(frozen=True)
class Services:
    """A running `visionloop up`."""

    clone: Clone
    model: str
    mlflow: str
    prefect_api: str

    def flow_runs(self, flow: str) -> list[dict[str, Any]]:
        """All runs of a flow that the Prefect server knows."""
        return self.prefect("flow_runs", {"flows": {"name": {"any_": [flow]}}})

    def prefect(self, what: str, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What the Prefect server has of one kind, filtered."""
        response = httpx.post(f"{self.prefect_api}/{what}/filter", json=where, timeout=30)
        found: list[dict[str, Any]] = response.raise_for_status().json()
        return found


@pytest.fixture(scope="session")
def services(
    clone: Clone, first_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """`visionloop up` in the clone, after the first run; stopped with Ctrl-C."""
    log = tmp_path_factory.mktemp("up") / "up.log"
    model, mlflow, prefect = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    ports = {
        "PREFECT_API_URL": f"{prefect}/api",
        "MLFLOW_TRACKING_URI": mlflow,
        "VISIONLOOP_PORT": model.rpartition(":")[2],
    }
    served = Clone(clone.root, {**clone.env, **ports})
    process = served.start("visionloop", "up", log=log)
    try:
        _wait_for(log, "Visionloop is up", process)
        yield Services(served, model, mlflow, ports["PREFECT_API_URL"])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _wait_for(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while text not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.5)


@pytest.fixture
def another_clone(tmp_path: Path) -> Clone:
    """A second fresh clone with the short parameters, with its own cache and state."""
    root = tmp_path / "another"
    root.mkdir()
    return make_clone(root, SHORT)
