"""Steps as processes of their own, and what they leave behind."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tasks.files import sha256

ROOT = Path(__file__).parents[2]
# Each step multiplies the weights by 1 - lr * weight_decay: beyond all bounds.
WILD = {"lr": 10.0, "weight_decay": 1.0, "epochs": 10}


def killed(folder: Path, module: str, ready: Callable[[], bool]) -> None:
    """Start the step as a process of its own and SIGKILL it as soon as it is `ready`."""
    environment = {**os.environ, "VISIONLOOP_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module]
    with open(folder / "log", "w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=output)
    while process.poll() is None and not ready():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (folder / "log").read_text()


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def table(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))
