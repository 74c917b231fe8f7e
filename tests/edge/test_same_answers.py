"""One image, one answer: the server, the edge runner and the MLflow model say the same of it."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sklearn.datasets import load_sample_image

from tasks import releases
from tasks.bundle import Bundle, open_bundle
from tasks.edge.folder import export_edge
from tasks.params import Settings
from tasks.registry.register import save_pyfunc
from tasks.schema import Serve
from tasks.serving.app import create_app
from tasks.signing import sign_directory

LIMITS = Serve(max_batch=8, max_wait_ms=1.0, max_images=40, max_upload_mb=5.0, max_queue=40)
STRANGE_FROM = -3.0  # an image without ink has a score of -2.6, all digits but one a lower one

Run = Callable[..., subprocess.CompletedProcess[str]]
Answers = list[dict[str, Any]]


@pytest.fixture
def pictures(tmp_path: Path, digit_images: np.ndarray) -> list[Path]:
    """Digits that were not trained on, a photograph, and last an image without any ink."""
    images = [*digit_images[1200:1224], load_sample_image("china.jpg"), np.zeros((8, 8, 3), "u1")]
    (tmp_path / "pictures").mkdir()
    paths = [tmp_path / "pictures" / f"{number:02}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture
def ask(on_device: Run, settings: Settings, tmp_path: Path) -> Callable[..., list[Answers]]:
    """The three answers to the files: of the server, the runner on a device, and MLflow."""

    def ask(bundle: Bundle, paths: list[Path]) -> list[Answers]:
        releases.publish(bundle, 1, settings)
        with TestClient(create_app(settings, LIMITS)) as client:
            parts = [("file", (str(path), path.read_bytes())) for path in paths]
            served = client.post("/v1/predict", files=parts).json()["predictions"]
        export_edge(bundle, tmp_path / "edge")
        done = on_device(tmp_path / "edge" / "run.py", "--json", *paths)
        assert done.returncode == 0, done.stderr
        save_pyfunc(bundle, tmp_path / "mlflow")
        table = mlflow.pyfunc.load_model(str(tmp_path / "mlflow")).predict(
            np.stack([bundle.pixels(path) for path in paths])
        )
        rows = json.loads(table.to_json(orient="records", double_precision=15))
        named = [{"filename": str(path)} | row for path, row in zip(paths, rows, strict=True)]
        return [served, [json.loads(line) for line in done.stdout.splitlines()], named]

    return ask


def assert_same(served: Answers, others: Answers) -> None:
    """Names, order and choices exactly; numbers but for the rounding of float32 in a batch."""
    assert [list(one) for one in others] == [list(one) for one in served]
    for one, other in zip(served, others, strict=True):
        for key, value in one.items():
            real = isinstance(value, float | dict)
            assert other[key] == (pytest.approx(value, abs=1e-5) if real else value), key


def test_all_three_say_the_same_of_digits_and_of_what_is_none(
    make_bundle: Callable[..., Bundle], ask: Callable[..., list[Answers]], pictures: list[Path]
) -> None:
    bundle = make_bundle(strange_from=STRANGE_FROM)
    served, edge, registered = ask(bundle, pictures)
    assert_same(served, edge)
    assert_same(served, registered)
    assert {one["abstain"] for one in served} == {True, False}
    assert len({len(one["prediction_set"]) for one in served}) > 1
    assert [one["strange"] for one in served[:24]].count(True) == 1
    assert served[-1]["strange"]


def test_a_bundle_from_before_thresholds_gives_its_best_class_everywhere(
    digits_bundle: Bundle,
    settings: Settings,
    ask: Callable[..., list[Answers]],
    pictures: list[Path],
) -> None:
    path = digits_bundle.path / "bundle.json"
    older = json.loads(path.read_text())
    for key in ("calibration", "ood_score", "decision"):
        del older[key]
    path.write_text(json.dumps(older))
    sign_directory(digits_bundle.path, settings)
    served, edge, registered = ask(open_bundle(digits_bundle.path, settings), pictures)
    assert_same(served, edge)
    assert_same(served, registered)
    for one in edge:
        assert (one["abstain"], one["ood_score"], one["strange"]) == (False, None, False)
        assert one["prediction_set"] == [one["label"]]


def test_the_runner_flags_what_a_person_should_see(
    on_device: Run,
    make_bundle: Callable[..., Bundle],
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    bundle = make_bundle(strange_from=STRANGE_FROM)
    export_edge(bundle, tmp_path / "edge")
    lines = on_device(tmp_path / "edge" / "run.py", *pictures).stdout.splitlines()
    assert bundle.info.decision is not None
    probabilities, _, scores = bundle.judge(np.stack([bundle.pixels(path) for path in pictures]))
    for line, row, score in zip(lines, probabilities, scores, strict=True):
        wanted = {"abstain": row.max() < 0.9, "strange": score >= STRANGE_FROM}
        assert line.split("\t")[3:] == [name for name, said in wanted.items() if said]
    assert lines[-1].endswith("strange")
    about = json.loads((tmp_path / "edge" / "model.json").read_text())
    assert (about["ood_score"], about["decision"]) == ("energy", asdict(bundle.info.decision))
