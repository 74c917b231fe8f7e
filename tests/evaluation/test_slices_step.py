"""Slices and groups as the step measures them: real digits, a real network, files and pages."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from small_pipeline import read_metrics

from tasks.data.shards import open_shards
from tasks.data.tables import CLEANED, write_table
from tasks.errors import ParamsError
from tasks.evaluation.evaluate import main
from tasks.params import PARAMS_FILE, load_params
from tasks.tracking import read_events

LISTED = {"layout": "table", "path": "photos", "annotations": "list.csv"}  # it has metadata


def set_slices(sources: dict[str, object] | None = None, **values: object) -> None:
    params = YAML().load(PARAMS_FILE)
    params["ingest"]["sources"] = sources or params["ingest"]["sources"]
    params["evaluate"]["slices"].update(values)
    params["evaluate"]["robustness"]["enabled"] = False
    YAML().dump(params, PARAMS_FILE)


@pytest.fixture
def scanner(pipeline) -> np.ndarray:
    """Each test image is given a scanner of its own column; B spoils every other one it scans."""
    table = pd.read_parquet(CLEANED)
    random = np.random.default_rng(0)
    names = random.choice(["A", "B", "C"], len(table))
    table["metadata"] = [
        json.dumps({"scanner": name, "note": f"no. {k}"}) for k, name in enumerate(names)
    ]
    write_table(CLEANED, table)
    by_path = dict(zip(table["path"], names, strict=True))
    mine = np.array([by_path[path] for path in open_shards().split("test").paths])
    spoilt = np.flatnonzero(mine == "B")[::2]
    folder = pipeline / "data/shards"
    images = np.load(folder / "test_images.npy")
    images[spoilt] = 255 - images[spoilt]
    np.save(folder / "test_images.npy", images)
    index = json.loads((folder / "shards.json").read_text())
    from tasks.files import sha256

    index["sha256"]["test_images.npy"] = sha256(folder / "test_images.npy")
    (folder / "shards.json").write_text(json.dumps(index))
    return mine


def test_a_scanner_that_spoils_images_is_found_and_told_everywhere(scanner, pipeline, tmp_path):
    set_slices({"digits": LISTED}, groups=["scanner"])
    main()
    found = read_metrics(pipeline)["slices"]
    assert {"class", "brightness", "scanner"} <= set(found["attributes"])
    assert not {"note", "source", "width", "mode"} & set(found["attributes"])
    first = found["found"][0]
    assert first["name"] == "scanner = B"
    assert first["images"] == (scanner == "B").sum()
    assert first["adjusted_p"] < 1e-6
    assert set(found["worst"]) >= {"name", "images", "accuracy", "adjusted_p"}
    assert found["worst"]["accuracy"]["value"] <= first["accuracy"]["value"]
    assert found["worst"]["images"] >= 30

    (slices,) = (tmp_path / "home").rglob("slices.csv")
    with slices.open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == found["looked_at"]
    assert rows[0]["slice"] == "scanner = B"
    lowest = min(rows, key=lambda row: float(row["accuracy"]))
    assert float(lowest["accuracy"]) == found["worst"]["accuracy"]["value"]
    (answers,) = (tmp_path / "home").rglob("predictions.parquet")
    right = pd.read_parquet(answers).eval("label == predicted").to_numpy()
    assert first["accuracy"]["value"] == pytest.approx(right[scanner == "B"].mean())

    group = found["groups"]["scanner"]
    for name in "ABC":
        value = group["groups"][f"scanner = {name}"]["accuracy"]["value"]
        assert value == pytest.approx(right[scanner == name].mean())
    assert group["adjusted_p"] < 0.01
    assert group["accuracy_gap"]["low"] > 0.1

    html = (pipeline / "data/bundle/report.html").read_text()
    section = html[html.index("Where it does worse") : html.index("Groups of scanner")]
    assert section.count("<img") >= 4
    assert "scanner = B" in section
    assert "more than chance gives" in html
    card = (pipeline / "data/bundle/MODEL_CARD.md").read_text()
    assert re.search(r"1 does worse than the others by more than chance, scanner = B: ", card)
    (events,) = (tmp_path / "home").rglob("events.jsonl")
    logged = [event["values"] for event in read_events(events.parent) if event["type"] == "metrics"]
    lowest = {"test_worst_slice_accuracy": found["worst"]["accuracy"]["value"]}
    assert any(lowest.items() <= values.items() for values in logged)


def test_turned_off_nothing_is_said(pipeline):
    set_slices(enabled=False)
    CLEANED.unlink()
    main()
    assert read_metrics(pipeline)["slices"] is None
    assert "Where it does worse" not in (pipeline / "data/bundle/report.html").read_text()


def test_an_unknown_group_is_named_with_the_nearest(scanner, pipeline):
    set_slices(groups=["brightnes"])
    with pytest.raises(ParamsError, match=r"'brightnes' is no attribute.*mean 'brightness'"):
        load_params()  # of folders, what there is is known before any work
    set_slices({"digits": LISTED}, groups=["scaner"])
    with pytest.raises(ParamsError, match=r"'scaner' is no attribute.*mean 'scanner'"):
        main()
    assert not (pipeline / "data/bundle").exists()


def test_small_slices_are_not_looked_at(pipeline):
    set_slices(min_images=400)
    main()
    found = read_metrics(pipeline)["slices"]
    assert (found["worst"], found["looked_at"], found["lowest_by_chance"]) == (None, 0, None)
    assert "No attribute parts" in (pipeline / "data/bundle/report.html").read_text()
