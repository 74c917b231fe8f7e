"""Everything together under `visionloop up`: flows, serving, drift, rollback."""

import csv
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_train_flow_runs_to_completion_in_prefect(services: Any) -> None:
    output = services.clone.check(
        "prefect", "deployment", "run", "train-flow/default", "--watch", timeout=600
    )
    assert "Completed" in output
    said = [line["message"] for line in services.prefect("logs", {})]
    assert "every stage is up to date" in said or "Running stage 'evaluate':" in said
    names = {artifact["key"] for artifact in services.prefect("artifacts", {})}
    assert {"metrics", "gate", "candidates", "confusion-matrix", "pareto"} <= names
    assert {"report", "model-card"} <= names
    assert {"cleaning-report", "cleaning-flags"} <= names


def test_a_sweep_is_shared_by_two_worker_runs(services: Any) -> None:
    overrides = {"tune.trials": 6, "tune.epochs": 3}
    output = services.clone.check(
        "prefect", "deployment", "run", "sweep-flow/default", "--watch", "--param", "workers=2",
        "--param", f"overrides={json.dumps(overrides)}", timeout=900,
    )  # fmt: skip
    assert "Completed" in output
    workers = services.flow_runs("sweep-worker")
    assert [run["state_type"] for run in workers] == ["COMPLETED", "COMPLETED"]
    said = [line["message"] for line in services.prefect("logs", {"limit": 200})]
    assert sum(line.startswith("joined study tune-") for line in said) == 2
    found = (services.clone.root / ".visionloop/workspaces").glob("*/data/tune")
    folder = max(found, key=lambda path: path.stat().st_mtime)  # other tests have some of their own
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == [str(number) for number in range(6)]
    (table,) = [a for a in services.prefect("artifacts", {}) if a["key"] == "trials"]
    assert len(json.loads(table["data"])) == 6
    key = json.loads((folder / "study.json").read_text())["key"]
    trained_by = {_worker_of(key, number, services.clone.root) for number in range(6)}
    assert len(trained_by) == 2


def _worker_of(key: str, number: int, root: Path) -> str:
    """Who trained a trial, by the study's journal."""
    lines = (root / f".visionloop/studies/{key}.log").read_text().splitlines()
    entries = [entry for line in lines if "user_attr" in (entry := json.loads(line))]
    return next(
        entry["user_attr"]["worker"]
        for entry in entries
        if entry.get("trial_id") == number and "worker" in entry["user_attr"]
    )


def test_a_digit_sent_with_curl_is_recognised(services: Any) -> None:
    for digit in ("3", "7"):
        file = sorted((services.clone.root / "data/raw/digits" / digit).glob("*.png"))[5]
        answer = services.clone.json(
            "curl", "-sf", "-F", f"file=@{file}", f"{services.model}/v1/predict"
        )
        assert answer["predictions"][0]["label"] == digit


def test_the_champion_loads_as_a_pyfunc_in_a_fresh_process(services: Any) -> None:
    code = (
        "import mlflow, numpy as np; "
        "m = mlflow.pyfunc.load_model('models:/visionloop@champion'); "
        "s = m.metadata.signature.inputs.inputs[0].shape; "
        "print(len(m.predict(np.zeros((3, *s[1:]), np.uint8))))"
    )
    assert services.clone.check("python", "-c", code).split()[-1] == "3"


def test_clean_predictions_start_no_training_and_corrupted_ones_start_one(services: Any) -> None:
    files = _images(services, 300)
    _send(services, [path.read_bytes() for path in files])
    assert _drift(services) == "no_drift"
    before = len(services.flow_runs("train-flow"))
    _send(services, [_corrupted(path) for path in files])
    assert _drift(services) == "drift"
    assert _drift(services) == "too_few"  # what led to a training run is no news
    _send(services, [_corrupted(path) for path in files])
    assert _drift(services) == "drift"  # again inside the cooldown: no second training
    time.sleep(3)
    assert len(services.flow_runs("train-flow")) == before + 1


def _drift(services: Any) -> str:
    services.clone.check("prefect", "deployment", "run", "drift-flow/nightly", "--watch")
    status = services.clone.json("visionloop", "status", "--json")
    outcome: str = status["last_drift_check"]["outcome"]
    return outcome


def _images(services: Any, count: int) -> list[Path]:
    every = sorted((services.clone.root / "data/raw/digits").glob("*/*.png"))
    chosen = np.random.default_rng(0).permutation(len(every))[:count]
    return [every[i] for i in chosen]


def _corrupted(path: Path) -> bytes:
    pixels = np.asarray(Image.open(path).convert("L")).astype(np.float32)
    noise = np.random.default_rng(len(path.name)).normal(0, 80, pixels.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _send(services: Any, images: list[bytes]) -> None:
    """Send one request an image, and wait until all are in the log."""
    with httpx.Client(base_url=services.model, timeout=30) as client, ThreadPoolExecutor(4) as pool:

        def post(data: bytes) -> int:
            return client.post("/v1/predict", files={"file": ("x.png", data)}).status_code

        assert set(pool.map(post, images)) == {200}
    time.sleep(3)  # the log is written off the request path


def test_rollback_changes_what_is_served_without_a_failed_request(services: Any) -> None:
    before = _wait_for_version(services, lambda version: version > 0)
    services.clone.check("visionloop", "run", "--set", "evaluate.resamples=425")
    newer = _wait_for_version(services, lambda version: version != before)
    failures: list[int] = []
    stop = threading.Event()
    image = _images(services, 1)[0].read_bytes()

    def hammer() -> None:
        with httpx.Client(base_url=services.model, timeout=30) as client:
            while not stop.is_set():
                code = client.post("/v1/predict", files={"file": ("x.png", image)}).status_code
                failures.extend([code] if code != 200 else [])

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        services.clone.check("visionloop", "rollback")
        assert _wait_for_version(services, lambda version: version != newer) == before
    finally:
        stop.set()
        thread.join()
    assert failures == []


def _wait_for_version(services: Any, wanted: Any) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        version: int = httpx.get(f"{services.model}/v1/model", timeout=10).json()["model_version"]
        if wanted(version):
            return version
        time.sleep(0.5)
    raise AssertionError(f"still serving version {version}")
