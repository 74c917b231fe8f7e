"""Cases in which figures are not defined or say little: told in the report, metrics and log."""

import json
import re

import numpy as np
import pytest
from ruamel.yaml import YAML
from small_pipeline import Network, read_metrics, write_candidates, write_network, write_shards

from tasks.errors import CompressionError
from tasks.evaluation.evaluate import main

ALL = {"train": slice(0, 1000), "validation": slice(1000, 1300), "test": slice(1300, 1797)}


@pytest.fixture(autouse=True)
def few_corrupted(pipeline):
    path = pipeline / "conf/params.yaml"
    params = YAML().load(path)
    params["evaluate"]["robustness"]["images"] = 3
    YAML().dump(params, path)


def shards(pipeline, digits, **rows) -> None:
    """Shards of the usual rows, or of other ones."""
    images, labels = digits
    splits = {name: (images[rows.get(name, part)], labels[rows.get(name, part)])
              for name, part in ALL.items()}  # fmt: skip
    write_shards(pipeline / "data/shards", splits)


def told(pipeline, caplog, words: str) -> str:
    """The one remark with these words, which is where a reader may look."""
    (remark,) = [note for note in read_metrics(pipeline)["remarks"] if words in note]
    html = (pipeline / "data/bundle/report.html").read_text()
    assert remark in html.replace("&#39;", "'")
    assert remark in (pipeline / "data/bundle/MODEL_CARD.md").read_text()
    assert remark in caplog.text
    return remark


def row_of(pipeline, name: str) -> list[str]:
    """The cells of a class's row in the report."""
    html = (pipeline / "data/bundle/report.html").read_text()
    table = html[html.index("<h2>Every class</h2>") :]
    row = re.search(rf"<tr[^>]*><td[^>]*>{name}</td>(.*?)</tr>", table)[1]
    return re.findall(r"<td[^>]*>(.*?)</td>", row)


def one_of_each(labels: np.ndarray, first: int) -> np.ndarray:
    """The rows from `first` on that show a class for the first time."""
    return np.sort(np.unique(labels[first:], return_index=True)[1] + first)


def test_a_class_absent_from_the_test_split_has_dashes_not_zeros(pipeline, digits, caplog):
    rest = np.flatnonzero(digits[1][1300:] != 7) + 1300
    shards(pipeline, digits, test=rest)
    main()
    told(pipeline, caplog, "No test images of 7")
    images, _, recall, bar, f1, area, average, fp32 = row_of(pipeline, "7")
    assert images == "0"
    assert bar == ""
    for cell in (recall, f1, area, average, fp32):
        assert "–" in cell
        assert "%" not in cell


def test_constant_predictions(pipeline, network, caplog):
    constant = Network(network.hidden, network.hidden_bias, network.out * 0, np.eye(10)[3] * 2.0)
    write_candidates(pipeline / "data/candidates", {"fp32": network, "int8": constant})
    main()
    told(pipeline, caplog, "for every test image")
    found = read_metrics(pipeline)["deployed"]
    assert found["kappa"]["value"] == 0
    assert found["kappa"]["low"] < 0 < found["kappa"]["high"]
    assert found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"]
    assert found["macro_roc_auc"] == 0.5
    _, precision, recall, *_ = row_of(pipeline, "4")
    assert "–" in precision  # never predicted: not known
    assert "0.0" in recall  # never found: known, and with an upper end
    assert not re.search(r"0\.0–0\.0", recall)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("role", ["int8", "fp32"])
def test_one_image_without_numbers_stops_the_step(pipeline, digits, network, split, role):
    """Its logits overflow; of all others they are as they were."""
    images = digits[0].copy()
    images[:, 0, 0, 0] = 0
    images[ALL[split].start + 5, 0, 0, 0] = 255
    shards(pipeline, (images, digits[1]))
    hidden = network.hidden.copy()
    hidden[0] = 3e38
    out = network.out * np.where(network.out > 0, 100, 1)
    write_network(
        pipeline / f"data/candidates/{role}.onnx",
        Network(hidden, network.hidden_bias, out, network.out_bias),
    )
    with pytest.raises(
        CompressionError, match=rf"{role}\.onnx gives logits that are not finite on 1"
    ):
        main()
    assert not (pipeline / "data/bundle").exists()
    assert not (pipeline / "data/metrics/evaluate.json").exists()


def test_one_test_image_per_class(pipeline, digits, caplog):
    shards(pipeline, digits, test=one_of_each(digits[1], 1300))
    main()
    told(pipeline, caplog, "Fewer than 10 test images of 0, 1, 2, 3, 4, 5, 6, 7 and 2 more")
    told(pipeline, caplog, "rests on 10 images in 10 bins")
    accuracy = read_metrics(pipeline)["deployed"]["accuracy"]
    assert accuracy["high"] - accuracy["low"] > 0.25  # ten images say little
    images, _, recall, *_ = row_of(pipeline, "4")
    assert images == "1"
    low, high = map(float, re.search(r"([\d.]+)–([\d.]+)", recall).groups())
    assert high - low > 75  # and one says next to nothing


def test_one_validation_image_per_class(pipeline, digits, caplog):
    shards(pipeline, digits, validation=one_of_each(digits[1], 1000))
    main()
    told(pipeline, caplog, "Prediction sets hold every class: on 10 validation images")
    sets = read_metrics(pipeline)["decision"]["prediction_sets"]
    assert (sets["mean_size"], sets["hold_the_true_class"]["value"]) == (10, 1)


def test_one_test_image(pipeline, digits, caplog):
    shards(pipeline, digits, test=slice(1300, 1301))
    main()
    told(pipeline, caplog, "and 1 more classes: their recall and F1 are not known")
    found = read_metrics(pipeline)["deployed"]
    assert found["kappa"] == {"value": None, "low": None, "high": None}
    assert found["macro_roc_auc"] is None
    html = (pipeline / "data/bundle/report.html").read_text()
    assert "nan" not in re.sub(r"data:image[^\"]*", "", html)


def test_labels_unseen_in_training(pipeline, digits, caplog):
    known = np.flatnonzero(digits[1][:1000] < 8)
    shards(pipeline, digits, train=known)
    main()
    remark = told(pipeline, caplog, "No training images of 8, 9")
    unseen = int((digits[1][1300:] >= 8).sum())
    assert f"their {unseen} test images" in remark


def test_a_thousand_classes(pipeline, caplog):
    """Figures by class in the table and the CSV, a matrix that can be read, a page that loads."""
    random = np.random.default_rng(0)
    kinds, shape = 1000, (16, 16, 3)
    prototypes = random.integers(0, 256, (kinds, *shape))
    labels = np.arange(2 * kinds) % kinds
    noise = random.normal(100, 60, (len(labels), *shape))
    images = np.clip(prototypes[labels] * 0.2 + noise, 0, 255).astype(np.uint8)
    names = tuple(f"class-{i:04d}" for i in range(kinds))
    parts = dict.fromkeys(("train", "validation", "test"), (images, labels))
    write_shards(pipeline / "data/shards", parts, names)
    directions = prototypes.reshape(kinds, -1) / 255 - 0.5
    network = Network(
        np.concatenate([np.eye(768), -np.eye(768)], 1), np.zeros(1536),
        np.concatenate([directions.T, -directions.T]), np.zeros(kinds),
    )  # fmt: skip
    write_candidates(pipeline / "data/candidates", {"fp32": network, "int8": network.coarse(0.05)})
    main()
    html = (pipeline / "data/bundle/report.html").read_text()
    assert len(html) < 8e6
    assert "The 30 classes with the most mistakes; 970 others are left out." in html
    told(pipeline, caplog, "Fewer than 10 test images of class-0000, class-0001")
    assert 0.3 < read_metrics(pipeline)["deployed"]["accuracy"]["value"] < 1
    assert row_of(pipeline, "class-0999")[0] == "2"
    assert len((pipeline / "data/plots/classes.csv").read_text().splitlines()) == 1001
    json.loads((pipeline / "data/bundle/metrics.json").read_text(), parse_constant=pytest.fail)
