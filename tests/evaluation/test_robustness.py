"""Robustness as the step measures it: real digits, a real network, its figures recomputed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from small_pipeline import read_metrics, write_candidates, write_shards

from tasks.data.shards import open_shards
from tasks.evaluation.corruptions.names import ALL, PUBLISHED
from tasks.evaluation.corruptions.suite import corrupt
from tasks.evaluation.evaluate import main
from tasks.evaluation.robustness import chosen_rows, measure_robustness
from tasks.evaluation.robustness_table import robustness_figures
from tasks.params import load_params
from tasks.schema import Robustness


def set_robustness(root: Path, **values: object) -> None:
    path = root / "conf/params.yaml"
    params = YAML().load(path)
    params["evaluate"]["robustness"].update(values)
    YAML().dump(params, path)


def test_every_figure_follows_from_the_answers_that_are_kept(pipeline, tmp_path):
    set_robustness(pipeline, images=150)
    main()
    (answers,) = (tmp_path / "home").rglob("corrupted.parquet")
    table = pq.read_table(answers).to_pandas()
    assert len(table) == 150 * 5 * len(ALL)
    table["right"] = table["predicted"] == table["label"]
    table["fp32_right"] = table["fp32_predicted"] == table["label"]
    found = read_metrics(pipeline)["robustness"]
    assert found["images"] == table["path"].nunique() == 150
    cells = table.groupby(["corruption", "severity"])["right"].mean()
    for name, accuracies in found["accuracy"].items():
        assert accuracies == pytest.approx(cells[name].tolist())
    common = table[table["corruption"].isin(PUBLISHED)]
    error = found["mean_corruption_error"]
    assert error["value"] == pytest.approx(1 - common["right"].mean())
    assert error["low"] < error["value"] < error["high"]
    assert found["fp32_mean_corruption_error"] == pytest.approx(1 - common["fp32_right"].mean())
    difference = found["difference_from_fp32"]
    assert difference["value"] == pytest.approx(
        common["right"].mean() - common["fp32_right"].mean()
    )
    assert difference["high"] - difference["low"] < error["high"] - error["low"]  # it is paired
    html = (pipeline / "data/bundle/report.html").read_text()
    assert "When something happens to the images" in html
    assert html.count("</tr>", html.index("matrix heat")) > 21
    assert "fifteen common corruptions" in (pipeline / "data/bundle/MODEL_CARD.md").read_text()


def test_the_answers_are_those_of_the_graphs(built):
    shards = open_shards(built / "data/shards")
    test = shards.split("test")
    models = {"int8": (built / "data/candidates/int8.onnx", "onnxruntime")}
    found = measure_robustness(test, models, Robustness(enabled=True, images=40), seed=3)
    import onnxruntime

    session = onnxruntime.InferenceSession(models["int8"][0])
    images = np.asarray(test.images)[found.rows]
    for name, severity in (("fog", 2), ("jpeg_compression", 5), ("occlusion", 1)):
        (logits,) = session.run(["logits"], {"images": corrupt(images, name, severity, 3)})
        cell = found.predicted["int8"][ALL.index(name), severity - 1]
        np.testing.assert_array_equal(cell, logits.argmax(1))
    right = np.roll(images, 1, 2)
    right[:, :, 0] = images[:, :, 0]
    (logits,) = session.run(["logits"], {"images": right})
    same = (logits.argmax(1) == found.clean["int8"]).mean()
    assert 0 < found.stable("int8") <= same


def test_turned_off_nothing_is_measured_nor_loaded(pipeline, tmp_path):
    set_robustness(pipeline, enabled=False)
    main()
    assert read_metrics(pipeline)["robustness"] is None
    assert not list((tmp_path / "home").rglob("corrupted.parquet"))
    assert "When something happens" not in (pipeline / "data/bundle/report.html").read_text()
    loaded = "import sys, tasks.evaluation.evaluate; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_fp32_alone_is_compared_with_itself(pipeline, network):
    set_robustness(pipeline, images=20)
    write_candidates(pipeline / "data/candidates", {"fp32": network}, chosen="fp32")
    main()
    found = read_metrics(pipeline)["robustness"]
    assert found["difference_from_fp32"] == {"value": 0, "low": 0, "high": 0}


def test_a_class_without_test_images_and_a_constant_model(pipeline, network, digits):
    """One is not asked for, the other is wrong alike, whatever happens."""
    images, labels = digits
    rest = np.flatnonzero(labels[1300:] != 7) + 1300
    parts = {"train": slice(0, 1000), "validation": slice(1000, 1300), "test": rest[:60]}
    write_shards(pipeline / "data/shards", {n: (images[s], labels[s]) for n, s in parts.items()})
    constant = type(network)(network.hidden * 0, network.hidden_bias, network.out, network.out_bias)
    write_candidates(pipeline / "data/candidates", {"fp32": network, "int8": constant})
    main()
    found = read_metrics(pipeline)["robustness"]
    always = found["accuracy_uncorrupted"]
    assert all(cell == [pytest.approx(always)] * 5 for cell in found["accuracy"].values())
    assert found["same_answer_after_a_shift_by_one_pixel"] == 1
    assert "less robust than fp32" in (pipeline / "data/bundle/report.html").read_text()


def test_a_part_of_the_test_split_has_every_class():
    labels = np.array([0] * 500 + [1] * 3 + [2] * 200)
    rows = chosen_rows(labels, 30, seed=0)
    assert len(rows) == len(set(rows)) == 30
    assert list(rows) == sorted(rows)
    assert set(labels[rows]) == {0, 1, 2}
    assert (labels[rows] == 0).sum() > (labels[rows] == 2).sum()
    np.testing.assert_array_equal(chosen_rows(labels, 30, 0), rows)
    np.testing.assert_array_equal(chosen_rows(labels, 10**6, 0), np.arange(703))


def test_a_worse_model_is_told_apart(built):
    """The interval of the difference leaves 0 out, on the side where it should."""
    test = open_shards(built / "data/shards").split("test")
    folder = built / "data/candidates"
    models = {name: (folder / f"{name}.onnx", "onnxruntime") for name in ("fp32", "int8")}
    params = load_params(built / "conf/params.yaml").evaluate
    found = measure_robustness(test, models, Robustness(enabled=True, images=200), seed=0)
    worse = found.predicted["int8"].copy()
    worse[:, :, ::4] = (worse[:, :, ::4] + 1) % 10
    found.predicted["int8"][:] = worse
    figures = robustness_figures(found, "int8", "fp32", params)
    assert figures.difference[2] < 0
    assert figures.error[0] > figures.fp32_error
    assert figures.hardest[0].mean == min(row.mean for row in figures.rows)
