"""The step as `dvc repro` runs it: real shards and graphs in, a signed bundle out."""

import csv
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from sklearn import metrics as sk
from small_pipeline import read_metrics

from tasks.bundle import open_bundle
from tasks.data.shards import open_shards
from tasks.evaluation.corruptions.names import ALL
from tasks.evaluation.two_bundles import identity, stored_answers
from tasks.params import load_settings
from tasks.tracking import read_events

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(built, tmp_path_factory) -> Path:
    """A directory in which the step has run, started as DVC starts it."""
    root = tmp_path_factory.mktemp("finished") / "pipeline"
    shutil.copytree(built, root)
    run = step(root)
    assert run.returncode == 0, run.stderr
    return root


def step(root: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tasks.evaluation.evaluate"]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "VISIONLOOP_HOME": str(root.parent / "home"),
    }  # fmt: skip
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture
def bundle(finished, monkeypatch):
    monkeypatch.chdir(finished)
    monkeypatch.setenv("VISIONLOOP_HOME", str(finished.parent / "home"))
    return open_bundle("data/bundle", load_settings())


def test_every_figure_is_recomputed_with_scikit_learn(finished, bundle):
    test = open_shards(finished / "data/shards").split("test")
    probabilities, _ = bundle.predict(test.images)
    predicted, labels = probabilities.argmax(1), test.labels
    found = read_metrics(finished)
    assert found["test_images"] == len(labels) == 497
    assert bundle.metrics() == found
    deployed = found["deployed"]
    for name, expected in (
        ("accuracy", sk.accuracy_score(labels, predicted)),
        ("balanced_accuracy", sk.balanced_accuracy_score(labels, predicted)),
        ("macro_precision", sk.precision_score(labels, predicted, average="macro")),
        ("macro_recall", sk.recall_score(labels, predicted, average="macro")),
        ("macro_f1", sk.f1_score(labels, predicted, average="macro")),
        ("weighted_precision", sk.precision_score(labels, predicted, average="weighted")),
        ("weighted_f1", sk.f1_score(labels, predicted, average="weighted")),
        ("kappa", sk.cohen_kappa_score(labels, predicted)),
    ):
        assert deployed[name]["value"] == pytest.approx(expected, abs=1e-9)
        assert deployed[name]["low"] < expected < deployed[name]["high"]
    for name, score in (
        ("macro_roc_auc", sk.roc_auc_score(labels, probabilities, multi_class="ovr")),
        ("macro_average_precision", sk.average_precision_score(np.eye(10)[labels], probabilities)),
    ):
        assert deployed[name] == pytest.approx(score, abs=1e-4)
    for k, share in deployed["top_k_accuracy"].items():
        expected = sk.top_k_accuracy_score(labels, probabilities, k=int(k))
        assert share == pytest.approx(expected, abs=1e-9)
    brier = ((probabilities - np.eye(10)[labels]) ** 2).sum(1).mean()
    assert deployed["brier"] == pytest.approx(brier, rel=1e-4)
    assert deployed["nll"] == pytest.approx(sk.log_loss(labels, probabilities), rel=1e-4)

    session = onnxruntime.InferenceSession(finished / "data/candidates/fp32.onnx")
    fp32 = session.run(["logits"], {"images": np.asarray(test.images)})[0].argmax(1)
    fp32_accuracy = sk.accuracy_score(labels, fp32)
    assert found["fp32"]["accuracy"]["value"] == pytest.approx(fp32_accuracy)
    assert found["agreement_with_fp32"] == pytest.approx(sk.accuracy_score(fp32, predicted))
    difference = found["difference_from_fp32"]
    assert difference["value"] == pytest.approx(deployed["accuracy"]["value"] - fp32_accuracy)
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert bundle.info.measurements.fp32_accuracy == found["fp32"]["accuracy"]["value"]


def test_class_table_is_scikit_learns(finished, bundle):
    test = open_shards(finished / "data/shards").split("test")
    predicted = bundle.predict(test.images)[0].argmax(1)
    expected = sk.precision_recall_fscore_support(test.labels, predicted)
    with (finished / "data/plots/classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == bundle.info.classes
    for i, row in enumerate(rows):
        for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
            assert float(row[name]) == pytest.approx(values[i])
            assert float(row[f"{name}_low"]) <= values[i] <= float(row[f"{name}_high"])
        assert int(row["images"]) == expected[3][i]


def test_confusion_table_has_one_row_an_image(finished, bundle):
    test = open_shards(finished / "data/shards").split("test")
    with (finished / "data/plots/confusion.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    predicted = bundle.predict(test.images)[0].argmax(1)
    assert [(row["actual"], row["predicted"]) for row in rows] == [
        (str(actual), str(said)) for actual, said in zip(test.labels, predicted, strict=True)
    ]


def test_bundle_is_whole_and_calibrated(finished, bundle):
    onnx.checker.check_model(onnx.load(bundle.path / "model.onnx"), full_check=True)
    info = bundle.info
    assert info.technique == "int8 of the trained network"
    assert info.architecture == "resnet_small"
    assert info.runtime.intra_op_threads == 2  # as measured by the compress step
    assert info.lineage.run_key == "train-0123456789ab"
    assert info.temperature == read_metrics(finished)["deployed"]["temperature"] != 1
    assert info.measurements.size_bytes == (bundle.path / "model.onnx").stat().st_size
    deployed = read_metrics(finished)["deployed"]
    assert deployed["calibration_error"] < deployed["calibration_error_before"]


def test_reference_holds_the_held_out_images_as_deployed(finished, bundle):
    shards = open_shards(finished / "data/shards")
    test, validation = shards.split("test"), shards.split("validation")
    reference = bundle.reference()
    probabilities, embedding = bundle.predict(test.images)
    np.testing.assert_allclose(reference["probabilities"][:497], probabilities, atol=1e-6)
    np.testing.assert_allclose(reference["embedding"][:497], embedding, atol=1e-4)
    np.testing.assert_array_equal(reference["labels"], [*test.labels, *validation.labels])
    np.testing.assert_array_equal(reference["hashes"], [*test.hashes, *validation.hashes])
    np.testing.assert_array_equal(reference["statistics"][497:], validation.statistics)
    assert reference["statistic_names"][0] == "brightness"
    assert {len(reference[name]) for name in ("probabilities", "embedding", "labels")} == {797}


def test_another_bundle_can_be_compared_with_it_on_the_test_images_alone(finished, bundle):
    test = open_shards(finished / "data/shards").split("test")
    answers = stored_answers(bundle)
    assert answers.digest == identity(test.hashes, test.labels.astype(str))
    np.testing.assert_array_equal(answers.predicted, bundle.predict(test.images)[0].argmax(1))


def test_same_inputs_give_the_same_bytes(finished, bundle):
    digest = bundle.digest
    shutil.rmtree(finished / "data/bundle")
    assert step(finished).returncode == 0
    assert open_bundle(finished / "data/bundle", load_settings()).digest == digest


def test_the_training_run_gets_the_evidence(finished, bundle):
    run = finished.parent / "home/tracking/train-0123456789ab"
    values = {k: v for event in read_events(run) if event["type"] == "metrics"
              for k, v in event["values"].items()}  # fmt: skip
    assert values["test_accuracy"] == bundle.info.measurements.accuracy
    assert values["test_macro_f1"] == read_metrics(finished)["deployed"]["macro_f1"]["value"]
    files = {path.name for path in (run / "files").rglob("*") if path.is_file()}
    assert files >= {"report.html", "MODEL_CARD.md", "predictions.parquet", "confusion.csv"}
    cleaning = (run / "files/data/cleaning.html").read_bytes()
    assert cleaning == (finished / "data/cleaning.html").read_bytes()
    table = pq.read_table(next(run.rglob("predictions.parquet"))).to_pydict()
    test = open_shards(finished / "data/shards").split("test")
    assert table["path"] == test.paths
    assert table["label"] == [str(label) for label in test.labels]
    top = [str(np.argmax(row)) for row in table["probabilities"]]
    assert table["predicted"] == top
    *_, scores = bundle.judge(test.images)
    np.testing.assert_allclose(table["ood_score"], scores, rtol=1e-4)
    agreement = np.mean(np.array(table["predicted"]) == np.array(table["fp32_predicted"]))
    assert agreement == pytest.approx(bundle.info.measurements.agreement_with_fp32)


class References(HTMLParser):
    """Collects what a page would load, its places that can be linked to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.places: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "poster")]
        self.places += [f"#{value}" for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text += data


def test_report_is_self_contained_and_shows_the_verdict_first(finished, bundle):
    html = (bundle.path / "report.html").read_text()
    page = References()
    page.feed(html)
    contents = {load for load in page.loads if load.startswith("#")}
    assert contents == set(page.places)
    assert len(page.places) == len(contents) > 10
    assert all(load.startswith("data:image/") for load in set(page.loads) - contents)
    assert "url(" not in html
    assert "@import" not in html
    assert "<script" not in html
    assert "default-src 'none'" in html
    assert len(html) < 8e6
    accuracy = f"{100 * bundle.info.measurements.accuracy:.1f}\xa0%"
    assert page.text.index(accuracy) < page.text.index("Every class")
    mistakes = round((1 - bundle.info.measurements.accuracy) * 497)
    strange = 5 + 7  # a picture of each kind, and the strangest test images
    assert html.count("<img") == min(24, mistakes) + len(ALL) + strange  # one of each corruption
    latency = f"{bundle.info.measurements.latency_ms:.3g} ms"
    for expected in ("int8", latency, bundle.info.lineage.params_hash, "Reliability", "Loss"):
        assert expected in page.text


def test_card_has_valid_front_matter(bundle):
    text = (bundle.path / "MODEL_CARD.md").read_text()
    _, front, body = text.split("---\n", 2)
    card = YAML(typ="safe").load(front)
    assert card["pipeline_tag"] == "image-classification"
    assert card["license"] == "unknown"
    (model,) = card["model-index"]
    (result,) = model["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert result["task"]["type"] == "image-classification"
    assert values["accuracy"] == pytest.approx(bundle.info.measurements.accuracy, abs=1e-6)
    assert set(values) == {"accuracy", "balanced_accuracy", "f1"}
    assert body.count("\n| ") > 10


def test_the_cards_example_runs(bundle, digits, tmp_path):
    """As on a device that has onnxruntime, numpy and Pillow, and nothing of ours."""
    from PIL import Image

    shutil.copytree(bundle.path, tmp_path / "device")
    Image.fromarray(digits[0][5]).save(tmp_path / "device/image.png")
    code = re.search(r"```python\n(.*?)```", (bundle.path / "MODEL_CARD.md").read_text(), re.S)[1]
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path / "device", capture_output=True, text=True)
    expected = bundle.predict(digits[0][5:6])[0][0]
    assert run.returncode == 0, run.stderr
    said, confidence = run.stdout.split()
    assert (said, float(confidence)) == (str(expected.argmax()), pytest.approx(expected.max()))
