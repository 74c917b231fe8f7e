"""Seconds of a rerun with nothing changed: the Prefect flow against a bare `dvc repro`.

python -m benchmarks.rerun [--repeats R]

Both run in the repository as whole processes, interleaved; the flow reports to a real Prefect
server that is started for the purpose. Shown beside them: `visionloop run`, the same loop without
Prefect, and a flow that does nothing (`floor`). Needs a finished run (`make demo`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx

from tasks.ports import free_port

BIN = Path(sys.executable).parent
FLOW = "from flows.train import train_flow; train_flow()"
EMPTY = "from prefect import flow; flow(lambda: None, name='empty')()"
COMMANDS = {
    "flow": [sys.executable, "-c", FLOW],
    "visionloop run": [str(BIN / "visionloop"), "run"],
    "dvc repro": [str(BIN / "dvc"), "repro"],
    "empty flow": [sys.executable, "-c", EMPTY],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with prefect_server() as environment:
        # once unmeasured: caches warm, and the proof that nothing changed
        for name in COMMANDS.keys() - {"empty flow"}:
            _require_unchanged(name, environment)
        for _ in range(repeats):
            for name, command in COMMANDS.items():
                started = time.perf_counter()
                subprocess.run(command, env=environment, capture_output=True, check=True)
                seconds[name].append(time.perf_counter() - started)
    _report({name: median(values) for name, values in seconds.items()})


@contextmanager
def prefect_server() -> Iterator[Mapping[str, str]]:
    """Start a Prefect server of its own; gives the environment that points to it."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        api = f"http://127.0.0.1:{port}/api"
        environment = {**os.environ, "PREFECT_HOME": home, "PREFECT_API_URL": api}
        command = [str(BIN / "prefect"), "server", "start", "--port", str(port)]
        with open(Path(home) / "log", "wb") as log:
            server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait(f"{api}/health")
            yield environment
        finally:
            server.terminate()
            server.wait()


def _wait(address: str, limit: float = 120) -> None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            httpx.get(address, timeout=2).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.5)
    sys.exit(f"error: the Prefect server did not answer at {address} within {limit:.0f} s")


def _require_unchanged(name: str, environment: Mapping[str, str]) -> None:
    done = subprocess.run(COMMANDS[name], env=environment, capture_output=True, text=True)
    output = done.stdout + done.stderr
    said = ("up to date", "in production already")
    if done.returncode != 0 or not any(text in output for text in said):
        sys.exit(f"error: `{name}` had something to do; run `make demo` first\n{output[-1500:]}")


def _report(seconds: Mapping[str, float]) -> None:
    for name, value in seconds.items():
        print(f"{name:16} {value:6.2f} s")
    ours, peer = seconds["flow"], seconds["dvc repro"]
    line = {"benchmark": "rerun", "ours": ours, "peer": peer, "ratio": ours / peer}
    line["floor"] = seconds["empty flow"]
    print(json.dumps({k: v if isinstance(v, str) else round(v, 3) for k, v in line.items()}))


if __name__ == "__main__":
    main()
