"""The attributes of images: from a table's own columns through the manifest to the test images."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tasks.data.attributes import attributes, read_attributes
from tasks.data.ingest import ingest
from tasks.data.sources.table import find_listed
from tasks.data.tables import CLEANED, manifest_file, write_table
from tasks.data.validate import main
from tasks.errors import DataError, ParamsError
from tasks.schema import ATTRIBUTES

PARAMS = Path(__file__).parents[2] / "conf/params.yaml"


@pytest.fixture
def manifest(tmp_path) -> pd.DataFrame:
    """Three photographs that a CSV file lists, with a column called like one of ours."""
    random = np.random.default_rng(0)
    for name, size in (("a", (40, 30)), ("b", (20, 50)), ("c", (10, 10))):
        pixels = random.integers(0, 255, (*size[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_text(
        "path,label,group,camera,age,brightness\n"
        "a.png,cat,p1,Leica,31,high\nb.png,dog,,,7,low\nc.png,cat,p2,Canon,,\n"
    )
    table = ingest("photos", find_listed(tmp_path, "list.csv"), 10**6, workers=1)
    return table.to_pandas()


def test_metadata_of_a_table_stand_beside_what_is_measured(manifest):
    found = attributes(manifest)
    assert list(found.columns) == [*ATTRIBUTES, "age", "metadata.brightness", "camera"]
    assert found["class"].tolist() == ["cat", "dog", "cat"]
    assert found["source"].tolist() == ["photos"] * 3
    assert found["camera"].tolist() == ["Leica", None, "Canon"]
    assert found["age"].tolist() == ["31", "7", None]
    assert found["metadata.brightness"].tolist() == ["high", "low", None]
    assert found["group"].tolist() == ["p1", None, "p2"]
    assert found["width"].tolist() == [40, 20, 10]
    assert found["megapixels"].tolist() == [0.0012, 0.001, 0.0001]
    assert found["aspect_ratio"].tolist() == pytest.approx([4 / 3, 0.4, 1])
    assert found["brightness"].between(0.3, 0.7).all()


def test_values_that_are_no_text_are_written_as_json():
    given = [{"area": 12.5, "crowd": False}, {"area": 3, "tags": ["x", "y"]}]
    columns = {"label": ["a", "b"], "given_group": None, "width": 1, "height": 1}
    rest = dict.fromkeys([name for name in ATTRIBUTES if name not in ("class", "group")], 1)
    rows = pd.DataFrame(rest | columns | {"metadata": [json.dumps(one) for one in given]})
    found = attributes(rows)
    assert found["area"].tolist() == ["12.5", "3"]
    assert found["crowd"].tolist() == ["false", None]
    assert found["tags"].tolist() == [None, '["x", "y"]']


def test_images_are_found_by_their_paths_in_any_order(manifest, tmp_path):
    file = tmp_path / "cleaned.parquet"
    write_table(file, manifest)
    found = read_attributes(["photos/c.png", "photos/a.png"], file)
    assert found["camera"].tolist() == ["Canon", "Leica"]
    with pytest.raises(DataError, match=r"no row of 1 images.*'photos/z\.png'.*dvc repro prepare"):
        read_attributes(["photos/a.png", "photos/z.png"], file)
    with pytest.raises(DataError, match="dvc repro clean"):
        read_attributes(["photos/a.png"], Path("nowhere.parquet"))


def test_a_group_that_the_table_does_not_have_stops_before_the_training(
    manifest, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    params = YAML().load(PARAMS)
    listed = {"layout": "table", "path": str(tmp_path), "annotations": "list.csv"}
    params["ingest"]["sources"] = {"photos": listed}
    params["evaluate"]["slices"]["groups"] = ["age", "kamera"]
    (tmp_path / "conf").mkdir()
    YAML().dump(params, tmp_path / "conf/params.yaml")
    write_table(manifest_file("photos"), manifest)
    write_table(CLEANED, manifest)
    with pytest.raises(ParamsError, match=r"slices\.groups: 'kamera' .*did you mean 'camera'"):
        main()
