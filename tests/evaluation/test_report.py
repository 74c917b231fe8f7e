"""The report at its limits: large images, many classes, and what a browser makes of it."""

import json
import re

import numpy as np
from small_pipeline import Network, write_candidates, write_shards

from tasks.data.thumbnails import data_uri
from tasks.evaluation.evaluate import main
from tasks.evaluation.plots import Series, chart
from tasks.evaluation.report import percent
from tasks.evaluation.tables import confused_pairs, shown_classes


def test_large_images_become_thumbnails():
    noise = np.random.default_rng(0).integers(0, 256, (1024, 512, 3), np.uint8)
    assert data_uri(noise).startswith("data:image/jpeg;base64,")
    assert len(data_uri(noise)) * 200 < 6e6  # 200 of the worst kind fit into the 8 MB
    assert data_uri(noise[:32, :32]).startswith("data:image/png;base64,")


def test_eighty_classes_make_a_report_that_can_be_read(pipeline):
    rng = np.random.default_rng(0)
    names = tuple(f"class-{i:02d}" for i in range(80))
    images = rng.integers(0, 256, (800, 16, 16, 3), np.uint8)
    labels = np.arange(800) % 80
    write_shards(
        pipeline / "data/shards",
        dict.fromkeys(("train", "validation", "test"), (images, labels)),
        names,
    )
    network = Network(
        rng.normal(size=(768, 32)), np.zeros(32), rng.normal(size=(32, 80)), np.zeros(80)
    )
    write_candidates(pipeline / "data/candidates", {"fp32": network, "int8": network})
    main()
    html = (pipeline / "data/bundle/report.html").read_text()
    assert len(html) < 2e6
    assert "The 30 classes with the most mistakes; 50 others are left out." in html
    remarks = json.loads((pipeline / "data/metrics/evaluate.json").read_text())["remarks"]
    assert any(re.search(r"never predicts class-.* more classes", remark) for remark in remarks)


def test_the_shown_part_of_a_large_matrix_holds_the_mistakes():
    confusion = np.diag(np.full(50, 10))
    confusion[40, 7] = 5
    shown = shown_classes(confusion, [str(i) for i in range(50)])
    assert {"40", "7"} <= set(shown.names)
    assert shown.left_out == 20
    row, column = shown.names.index("40"), shown.names.index("7")
    assert shown.counts[row][column] == 5
    assert shown.shares[row][column] == 5 / 15
    assert confused_pairs(confusion, [str(i) for i in range(50)]) == [("40", "7", 5, 5 / 15)]


def test_charts_escape_names_and_stand_equal_values():
    markup = chart(
        "<t>", "x & y", "y", [Series("<b>", [1.0, 1.0], [2.0, 2.0], labels=["<i>", "j"])]
    )
    assert "<b>" not in markup
    assert "&lt;i&gt;" in markup
    assert "x &amp; y" in markup
    assert "nan" not in markup
    assert chart("empty", "x", "y", [Series("none", [], [])])
    assert "nan" not in chart("gap", "x", "y", [Series("a", [1, 2, 3], [1, float("nan"), 2])])


def test_what_is_not_defined_is_a_dash():
    assert percent(None) == percent(float("nan")) == "–"
    assert percent(0.98765) == "98.8\xa0%"
