"""The step on what is unusual: odd names, absent classes, degenerate models, missing files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from small_pipeline import Network, read_metrics, write_candidates, write_network, write_shards

from tasks.bundle import open_bundle
from tasks.errors import CompressionError, DataError, RuntimeMissing, TrainingError
from tasks.evaluation.evaluate import main
from tasks.params import load_settings

ROOT = Path(__file__).parents[2]


def test_markup_in_names_stays_text(pipeline, digits, network):
    images, labels = digits
    names = tuple(f"<b>{i}|*</b>" for i in range(10))
    splits = {"train": slice(0, 50), "validation": slice(1000, 1300), "test": slice(1300, 1797)}
    shards = {name: (images[s], labels[s]) for name, s in splits.items()}
    write_shards(pipeline / "data/shards", shards, names)
    main()
    html = (pipeline / "data/bundle/report.html").read_text()
    assert "&lt;b&gt;3|*&lt;/b&gt;" in html
    assert "<b>3|*" not in html
    card = (pipeline / "data/bundle/MODEL_CARD.md").read_text()
    assert r"| \<b\>3\|\*\</b\> | " in card


def test_a_class_absent_from_the_test_split_is_told(pipeline, digits, caplog):
    images, labels = digits
    test = np.flatnonzero(labels[1300:] != 7) + 1300
    splits = {"train": slice(0, 50), "validation": slice(1000, 1300), "test": test}
    write_shards(pipeline / "data/shards", {n: (images[s], labels[s]) for n, s in splits.items()})
    main()
    remark = next(r for r in read_metrics(pipeline)["remarks"] if "No test images of 7" in r)
    assert remark in (pipeline / "data/bundle/report.html").read_text()
    assert remark in (pipeline / "data/bundle/MODEL_CARD.md").read_text()
    assert remark in caplog.text
    row = (pipeline / "data/plots/classes.csv").read_text().splitlines()[8].split(",")
    assert row[:2] == ["7", "0"]
    assert row[5:8] == ["", "", ""]  # recall is empty, not 0


def test_a_model_that_always_says_the_same_is_told(pipeline, network):
    network = Network(network.hidden, network.hidden_bias, network.out * 0, np.eye(10)[3] * 2.0)
    write_candidates(pipeline / "data/candidates", {"fp32": network, "int8": network})
    main()
    found = read_metrics(pipeline)
    # Which one calibration may have changed: all that is left to learn is how frequent they are.
    assert any("for every test image: it has learned nothing" in one for one in found["remarks"])
    assert found["deployed"]["balanced_accuracy"]["value"] == pytest.approx(0.1)
    assert found["agreement_with_fp32"] == 1.0


def test_a_perfect_model_has_no_mistakes_and_an_honest_interval(pipeline):
    write_candidates(pipeline / "data/candidates", {"fp32": _oracle(), "int8": _oracle()})
    labels = np.arange(60) % 10
    shown = _oracle_images(labels)
    write_shards(
        pipeline / "data/shards", dict.fromkeys(("train", "validation", "test"), (shown, labels))
    )
    main()
    found = read_metrics(pipeline)["deployed"]["accuracy"]
    assert found["value"] == found["high"] == 1
    assert found["low"] == pytest.approx(60 / (60 + 1.959964**2))  # Wilson
    html = (pipeline / "data/bundle/report.html").read_text()
    assert "Every test image is classified right" in html
    assert "All 60 validation images" in html


def test_fp32_itself_may_be_chosen(pipeline, network):
    write_candidates(pipeline / "data/candidates", {"fp32": network}, chosen="fp32")
    main()
    found = read_metrics(pipeline)
    assert found["agreement_with_fp32"] == 1
    assert found["difference_from_fp32"] == {"value": 0, "low": 0, "high": 0}
    assert "The fp32 model itself is deployed" in (pipeline / "data/bundle/report.html").read_text()


def test_the_evidence_is_of_the_runtime_that_was_chosen(pipeline, digits, monkeypatch):
    """And there is none where it is not installed: it would be of something else."""
    path = pipeline / "data/candidates/candidates.json"
    results = json.loads(path.read_text())
    results["candidates"][1] |= {"runtime": "openvino", "threads": 1}
    path.write_text(json.dumps(results))
    main()
    bundle = open_bundle(pipeline / "data/bundle", load_settings())
    assert (bundle.info.runtime.name, bundle.info.runtime.intra_op_threads) == ("openvino", 1)
    assert bundle.runtime == "openvino"
    for name in ("MODEL_CARD.md", "report.html"):
        assert "OpenVINO" in (bundle.path / name).read_text()
    images = digits[0][1300:]
    np.testing.assert_array_equal(
        bundle.predict(images[:64])[0], bundle.reference()["probabilities"][:64]
    )
    found = read_metrics(pipeline)["deployed"]["accuracy"]["value"]
    assert found == pytest.approx((bundle.predict(images)[0].argmax(1) == digits[1][1300:]).mean())

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeMissing, match="OpenVINO is not installed"):
        main()


def test_an_empty_test_split_stops_the_step(pipeline, digits):
    images, labels = digits
    splits = {"train": slice(0, 50), "validation": slice(1000, 1300), "test": slice(0, 0)}
    write_shards(pipeline / "data/shards", {n: (images[s], labels[s]) for n, s in splits.items()})
    with pytest.raises(DataError, match=r"the test split holds no images.*split\.test"):
        main()
    assert not (pipeline / "data/bundle").exists()


def test_candidates_of_other_classes_stop_the_step(pipeline, network):
    small = Network(network.hidden, network.hidden_bias, network.out[:, :6], network.out_bias[:6])
    write_candidates(pipeline / "data/candidates", {"fp32": small, "int8": small})
    with pytest.raises(CompressionError, match="tells 6 classes apart, the shards hold 10"):
        main()


def test_logits_that_are_not_numbers_stop_the_step(pipeline, network):
    broken = Network(network.hidden, network.hidden_bias, network.out * np.nan, network.out_bias)
    write_network(pipeline / "data/candidates/int8.onnx", broken)
    with pytest.raises(
        CompressionError, match=r"int8\.onnx gives logits that are not finite on 300"
    ):
        main()
    assert not (pipeline / "data/bundle").exists()


@pytest.mark.parametrize(
    ("lost", "error", "said"),
    [
        ("data/candidates/candidates.json", CompressionError, "dvc repro compress"),
        ("data/candidates/int8.onnx", CompressionError, "int8.onnx does not exist"),
        ("data/model/run.json", TrainingError, "dvc repro train"),
        ("data/model/model.json", TrainingError, "dvc repro train"),
    ],
)
def test_what_is_missing_is_named(pipeline, lost, error, said):
    (pipeline / lost).unlink()
    with pytest.raises(error, match=said):
        main()
    assert not (pipeline / "data/bundle").exists()


def test_without_curves_and_cleaning_counts_the_report_still_stands(pipeline):
    (pipeline / "data/plots/curves.csv").unlink()
    (pipeline / "data/metrics/clean.json").unlink()
    (pipeline / "data/cleaning.html").unlink()
    main()
    html = (pipeline / "data/bundle/report.html").read_text()
    assert "left no curves" in html
    assert "images in," not in html


def _oracle_images(labels: np.ndarray) -> np.ndarray:
    """Images whose first pixels spell the label: pixel i is lit for class i."""
    images = np.zeros((len(labels), 16, 16, 3), np.uint8)
    images[np.arange(len(labels)), 0, labels] = 255
    return images


def _oracle() -> Network:
    hidden = np.zeros((16 * 16 * 3, 10))
    hidden[np.arange(10) * 3, np.arange(10)] = 1.0
    return Network(hidden, np.zeros(10), np.eye(10) * 2, np.zeros(10))


def test_the_cards_example_of_another_input_runs_on_a_bare_device(pipeline, digits, tmp_path):
    """With onnxruntime, numpy, Pillow and four files of ours, and nothing that those need."""
    import re
    import shutil
    import subprocess
    import sys

    from PIL import Image

    from tasks.bundle import open_bundle
    from tasks.params import load_settings

    images, labels = digits
    parts = {"train": slice(0, 50), "validation": slice(1000, 1300), "test": slice(1300, 1797)}
    shards = {name: (images[s], labels[s]) for name, s in parts.items()}
    zscore = {"method": "zscore", "spread": 60.0}
    changes = {"resize": "crop", "margin": 2, "colour": "grey", "normalise": zscore}
    write_shards(pipeline / "data/shards", shards, **changes)
    main()
    device = tmp_path / "device"
    shutil.copytree(pipeline / "data/bundle", device)
    (device / "tasks").mkdir()
    for name in ("pixels.py", "normalise.py", "errors.py", "__init__.py"):
        shutil.copy(ROOT / "tasks" / name, device / "tasks")
    photo = Image.fromarray(np.concatenate([images[1305], images[1306]], axis=1))
    photo.save(device / "image.png")
    code = re.search(r"```python\n(.*?)```", (device / "MODEL_CARD.md").read_text(), re.S)[1]
    code += "import sys, tasks\nassert tasks.__file__.startswith(sys.argv[1]), tasks.__file__\n"
    code += "assert not {'pydantic', 'torch', 'pandas'} & set(sys.modules)\n"
    command = [sys.executable, "-c", code, str(device)]
    run = subprocess.run(command, cwd=device, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    bundle = open_bundle(pipeline / "data/bundle", load_settings())
    expected = bundle.predict(bundle.pixels(device / "image.png")[None])[0][0]
    said, confidence = run.stdout.split()
    assert (said, float(confidence)) == (str(expected.argmax()), pytest.approx(expected.max()))
