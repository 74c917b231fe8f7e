"""SIGKILL in the stages that train and measure: the end is that of an unbroken run."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

# Bare DVC first: it refuses to start while the orphan of a killed run is not yet reaped, which
# is up to the machine's init; `visionloop run` waits for that.
KILLED = {
    "tune": ("dvc", "repro"),
    "train": ("dvc", "repro"),
    "compress": ("visionloop", "run"),
    "evaluate": ("visionloop", "run"),
}


def test_killed_in_every_stage_the_run_ends_as_an_unbroken_one(
    clone: Any, first_run: dict[str, Any], another_clone: Any, tmp_path: Path
) -> None:
    for stage, command in KILLED.items():
        log = tmp_path / f"{stage}.log"
        process = another_clone.start(*command, log=log)
        _wait_for(f"Running stage '{stage}'", log, process)
        time.sleep(4)  # into the work of the stage: its imports take two seconds or more
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = another_clone.json("visionloop", "run", "--json", timeout=900)
    assert _same("data/model/model.safetensors", clone, another_clone)
    assert _same("data/tune/best.yaml", clone, another_clone)
    for candidate in ("fp32", "fp32-int8", "distilled", "pruned"):
        assert _same(f"data/candidates/{candidate}.onnx", clone, another_clone)
    assert _accuracies(another_clone) == _accuracies(clone)
    assert result["registry"]["version"] == 1


def _wait_for(line: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while line not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.1)


def _same(name: str, one: Any, other: Any) -> bool:
    return bool((one.root / name).read_bytes() == (other.root / name).read_bytes())


def _accuracies(clone: Any) -> dict[str, float]:
    path = clone.root / "data" / "candidates" / "candidates.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["candidates"]
    return {row["name"]: row["accuracy"] for row in rows}
