"""The step, on real digits: what it leaves, what it survives, what it refuses."""

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnxruntime
import pytest
import torch
from ruamel.yaml import YAML

from tasks.compression import compress
from tasks.compression.on_runtimes import on
from tasks.errors import CompressionError, DataError, TrainingError
from tasks.params import load_settings
from tasks.runtime import available
from tasks.tracking import outbox, read_events
from tasks.training.models import load_model, save_model

NAMES = ["fp32", "fp32-int8", "distilled", "distilled-int8", "pruned", "pruned-int8"]
MODELS = [f"{name}.onnx" for name in NAMES]
ROOT = Path(__file__).parents[2]


def set_budget(**limits: float) -> None:
    path = Path("conf/params.yaml")
    values = YAML().load(path.read_text())
    values["budget"] |= limits
    with open(path, "w") as stream:
        YAML().dump(values, stream)


def on_every_runtime(names: list[str]) -> list[str]:
    return [on(name, runtime) for name in names for runtime in available()]


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.compression.compress"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )


def test_a_killed_step_goes_on_and_ends_with_the_same_models(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compress.main()
    whole = {name: (project / "data/candidates" / name).read_bytes() for name in MODELS}
    results = json.loads(Path("data/candidates/candidates.json").read_text())
    assert [row["name"] for row in results["candidates"]] == NAMES
    assert results["failed"] == []
    chosen = [row["name"] for row in results["candidates"] if row["verdict"] == "chosen"]
    assert chosen == [results["chosen"]]
    rows = {row["name"]: row for row in results["candidates"]}
    for name in ("fp32", "distilled", "pruned"):
        assert rows[name]["parity_max_difference"] <= 1e-3
        assert rows[name]["parity_agreement"] == 1.0
    assert rows["fp32-int8"]["agreement"] >= 0.98
    assert rows["distilled"]["parameters"] < rows["fp32"]["parameters"]
    assert rows["pruned"]["parameters"] < rows["fp32"]["parameters"]
    with open("data/plots/pareto.csv") as stream:
        table = list(csv.DictReader(stream))
    assert [row["name"] for row in table if row["chosen"] == "True"] == chosen
    page = Path("data/candidates/pareto.html").read_text()
    assert "<script src=" not in page
    assert all(name in page for name in NAMES)
    events = read_events(outbox(load_settings()) / "train-0123456789ab")
    assert any(event["type"] == "metrics" for event in events)
    for row in results["candidates"]:
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["latency_ratio_low"] <= row["latency_ratio"] <= row["latency_ratio_high"]
        assert min(row["images_per_second"], row["cold_start_ms"]) > 0
        assert row["memory_bytes"] > row["size_bytes"]
    below = read_events(outbox(load_settings()) / "train-0123456789ab-candidate-pruned-int8")
    assert below[0]["parent"] == "train-0123456789ab"
    assert [event["type"] for event in below][-1] == "finish"
    assert not list(load_settings().home.glob("checkpoints/*"))

    process = start()
    while process.poll() is None:
        if list(load_settings().home.glob("checkpoints/*/distilled-*.pt")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    assert process.wait() == -signal.SIGKILL
    with caplog.at_level(logging.INFO):
        compress.main()
    assert "went on from" in caplog.text
    again = {name: (project / "data/candidates" / name).read_bytes() for name in MODELS}
    assert again == whole


def test_impossible_budget_says_what_is_nearest_and_writes_nothing(project: Path) -> None:
    set_budget(max_size_mb=0.0001)
    process = start()
    message = process.communicate()[1].decode()
    assert process.returncode != 0
    assert "the nearest is" in message
    assert "budget.max_size_mb" in message
    assert "Traceback" not in message
    assert not Path("data/candidates").exists()
    assert not Path("data/metrics/compress.json").exists()


def test_weights_that_are_not_finite_are_named(project: Path) -> None:
    model, spec = load_model(Path("data/model"))
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    save_model(Path("data/model"), model, spec)
    with pytest.raises(CompressionError, match=r"head\.weight"):
        compress.main()
    assert not Path("data/candidates").exists()


def test_a_missing_model_says_which_stage_makes_it(project: Path) -> None:
    Path("data/model/model.safetensors").unlink()
    with pytest.raises(TrainingError, match="dvc repro train"):
        compress.main()


def test_an_altered_shard_stops_the_step(project: Path) -> None:
    path = Path("data/shards/train_images.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"train_images\.npy"):
        compress.main()


def test_a_candidate_that_cannot_be_built_is_a_row_with_its_reason(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is a GPU passed over in silence, that ONNX Runtime was built for and does not find."""
    path = Path("conf/params.yaml")
    values = YAML().load(path.read_text())
    values["compress"]["distil"]["temperature"] = 1e-60  # soft targets that overflow
    values["compress"]["prune"]["alpha"] = 0.9  # which pruning hears too
    values["compress"] |= {"openvino": True, "gpu": True}
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with open(path, "w") as stream:
        YAML().dump(values, stream)
    compress.main()
    results = json.loads(Path("data/candidates/candidates.json").read_text())
    reasons = {row["name"]: row["reason"] for row in results["failed"]}
    assert set(reasons) == {"distilled", "distilled-int8", "pruned", "pruned-int8"}
    assert "diverged" in reasons["distilled"]
    assert "distilled" in reasons["distilled-int8"]
    assert [row["name"] for row in results["candidates"]] == on_every_runtime(NAMES[:2])
    if "cuda" not in available():
        assert "no candidate on it: CUDAExecutionProvider is installed and does not" in caplog.text


def test_a_full_disk_ends_the_step_and_leaves_the_last_candidates(project: Path) -> None:
    """The size limit of files makes the kernel refuse the write, as a full disk does."""
    kept = Path("data/candidates/candidates.json")
    kept.parent.mkdir()
    kept.write_text("those of the last run")
    limited = (
        "import resource, runpy;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        "runpy.run_module('tasks.compression.compress', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert kept.read_text() == "those of the last run"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
