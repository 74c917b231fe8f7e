"""Every kind of source gives the images it should, and says what is wrong with it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.data.images import image_files, read_image
from tasks.data.ingest import ingest
from tasks.data.sources.boxes import find_coco, find_voc
from tasks.data.sources.detect import detect
from tasks.data.sources.folders import find_split_files
from tasks.data.sources.found import Found
from tasks.data.sources.locate import find, local_folder
from tasks.data.sources.table import find_listed
from tasks.errors import DataError
from tasks.params import load_params
from tasks.pixels import read
from tasks.schema import FolderSource

LIMITS = load_params(Path(__file__).parents[2] / "conf/params.yaml").ingest


def make_archive(folder: Path, target: Path) -> Path:
    return Path(shutil.make_archive(str(target.with_suffix("")), "zip", folder))


def csv(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def by_path(found: list[Found]) -> dict[str, Found]:
    assert [one.path for one in found] == sorted(one.path for one in found)
    return {one.path: one for one in found}


def test_split_folders_keep_their_splits(tmp_path: Path, images: Path) -> None:
    root = tmp_path / "presplit"
    for name in ("train", "val", "Test"):
        (root / name).parent.mkdir(exist_ok=True)
        os.rename(images, root / name) if name == "train" else None
        if name != "train":
            (root / name / "cat").mkdir(parents=True)
            Image.open(root / "train/cat/0.png").save(root / name / "cat/x.png")
    (root / "README.txt").write_text("about")
    found = by_path(find_split_files(root))
    assert found["train/dog/1.png"].split == "train"
    assert found["val/cat/x.png"].split == "validation"
    assert found["Test/cat/x.png"].split == "test"
    assert found["train/dog/1.png"].label == "dog"
    assert found["README.txt"].problem == "outside the folders of splits"
    (root / "holdout").mkdir()
    with pytest.raises(DataError, match="'holdout' is none of"):
        find_split_files(root)


def test_a_table_gives_labels_groups_splits_weights_and_metadata(images: Path) -> None:
    folder = csv(
        images.parent,
        "path,label,group,split,weight,site,camera\n"
        "images/cat/0.png,NA,p1,train,2,Bern,\n"
        "images/dog/1.png,dog,p2,Val,,,X\n",
    )
    found = by_path(find_listed(folder, "labels.csv"))
    first, second = found["images/cat/0.png"], found["images/dog/1.png"]
    assert (first.label, first.group, first.split, first.weight) == ("NA", "p1", "train", 2.0)
    assert json.loads(str(first.metadata)) == {"site": "Bern"}
    assert (second.split, second.weight) == ("validation", None)
    assert json.loads(str(second.metadata)) == {"camera": "X"}
    manifest = ingest("mine", list(found.values()), 10**8).to_pandas()
    assert manifest["error"].isna().all()
    assert list(manifest["given_group"]) == ["p1", "p2"]


def test_a_parquet_table_and_other_separators_read_alike(images: Path) -> None:
    rows = pd.DataFrame({"path": ["images/cat/0.png"], "label": ["cat"], "age": [7]})
    rows.to_parquet(images.parent / "labels.parquet")
    csv(images.parent, "\ufeffpath;label;age\nimages/cat/0.png;cat;7\n")
    csv(images.parent, "path\tlabel\tage\nimages/cat/0.png\tcat\t7\n", "labels.tsv")
    parquet, semicolons, tabs = (
        find_listed(images.parent, f"labels.{kind}") for kind in ("parquet", "csv", "tsv")
    )
    assert semicolons == tabs
    assert parquet[0]._replace(metadata=None) == tabs[0]._replace(metadata=None)
    assert json.loads(str(parquet[0].metadata)) == {"age": 7}


def test_rows_that_cannot_be_used_say_why(images: Path) -> None:
    folder = csv(
        images.parent,
        "path,label\nimages/cat/0.png,cat\nimages/cat/0.png,dog\n../../secret.png,cat\n"
        "images/none.png,cat\nimages/dog/0.png,\n,dog\n",
    )
    found = find_listed(folder, "labels.csv")
    rows = ingest("mine", found, 10**8).to_pandas().set_index("path")["error"].to_dict()
    assert rows["mine/images/cat/0.png"] is None
    assert rows["mine/images/cat/0.png (row 3)"] == "listed before, in row 2"
    assert "leads out of" in rows["mine/../../secret.png"]
    assert "No such file" in rows["mine/images/none.png"]
    assert rows["mine/images/dog/0.png"] == "row 6 of the table has no label"
    assert len(rows) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\nx,y\n", "no column 'path'"),
        ("path,lable\nx,y\n", "no column 'label' (rename 'lable')"),
        ("path,label\n", "lists no image"),
        ("path,label,split\nx,y,holdout\n", "row 2 of .*: split 'holdout' is none of"),
        ("path,label,weight\nx,y,-1\n", "weight '-1' is not a number above 0"),
        ("path,label,weight\nx,y,heavy\n", "weight 'heavy'"),
        ('path,label\n"x,y\n', "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_wrong_table_is_named_with_the_way_out(tmp_path: Path, text: str, words: str) -> None:
    import re

    pattern = words if ".*" in words else re.escape(words)
    with pytest.raises(DataError, match=pattern):
        find_listed(csv(tmp_path, text), "labels.csv")


def test_a_missing_or_binary_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_listed(tmp_path, "labels.csv")
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 not a table")
    with pytest.raises(DataError, match="cannot be read"):
        find_listed(tmp_path, "labels.parquet")
    (tmp_path / "labels.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(DataError, match="cannot be read"):
        find_listed(tmp_path, "labels.csv")


def coco(folder: Path, **changes: object) -> Path:
    document = {
        "images": [{"id": 1, "file_name": "cat/0.png"}, {"id": 2, "file_name": "dog/0.png"}],
        "categories": [{"id": 5, "name": "eye"}, {"id": 6, "name": "ear"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "bbox": [10, 20, 40, 30], "area": 1200},
            {"id": 2, "image_id": 1, "category_id": 6, "bbox": [-5, -5, 25.4, 25.4]},
            {"id": 3, "image_id": 2, "category_id": 6, "bbox": [500, 500, 10, 10]},
            {"id": 4, "image_id": 2, "category_id": 5, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
        **changes,
    }
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


def test_coco_boxes_become_images_with_a_margin(images: Path) -> None:
    found = find_coco(coco(images), "instances.json", margin=0.1)
    assert [(one.path, one.label) for one in found] == [
        ("cat/0.png#1", "ear"),
        ("cat/0.png#2", "eye"),
        ("dog/0.png#1", "ear"),
    ]
    assert found[1].box == (6, 17, 54, 53)
    rows = ingest("boxes", found, 10**8).to_pandas()
    assert rows["width"].tolist()[:2] == [22 + 1, 48]
    assert "lies outside the image" in rows["error"][2]
    whole = read(images / "cat/0.png", 10**8)
    first = image_files(rows[1:2], {"boxes": images})[0]
    np.testing.assert_array_equal(read_image(first, 10**8), whole[17:53, 6:54])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotations": []}, "holds no box"),
        ({"images": [{"id": 1}]}, "no COCO file of boxes: KeyError: 'file_name'"),
        ({"categories": None}, "no COCO file"),
        ({"annotations": [{"image_id": 9, "category_id": 5, "bbox": [1, 2, 3, 4]}]}, "KeyError: 9"),
        ({"annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2]}]}, "ValueError"),
    ],
)
def test_a_wrong_coco_file_is_named(images: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        find_coco(coco(images, **changes), "instances.json", 0.0)


VOC = """<annotation><filename>{name}</filename>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>11</xmin><ymin>21</ymin>
<xmax>50</xmax><ymax>60</ymax></bndbox></object></annotation>"""


def test_voc_boxes_become_images(images: Path) -> None:
    root = images.parent
    (root / "Annotations").mkdir()
    (root / "Annotations/a.xml").write_text(VOC.format(name="cat/0.png"))
    (root / "Annotations/b.xml").write_text("<annotation><object></annotation>")
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><annotation>&a;</annotation>'
    (root / "Annotations/c.xml").write_text(bomb)
    found = by_path(find_voc(root, "Annotations", margin=0.0))
    box = found["images/cat/0.png#1"]
    assert (box.label, box.box) == ("cat", (10, 20, 50, 60))
    assert json.loads(str(box.metadata)) == {"difficult": "1"}
    assert "no Pascal VOC annotation" in str(found["Annotations/b.xml"].problem)
    assert "no Pascal VOC annotation" in str(found["Annotations/c.xml"].problem)
    rows = ingest("voc", list(found.values()), 10**8).to_pandas().set_index("path")
    assert rows.loc["voc/images/cat/0.png#1", "width"] == 40


def test_labels_are_renamed_merged_and_dropped(images: Path) -> None:
    source = FolderSource(
        path=str(images), layout="folders", labels={"cat": "animal", "dog": "animal"}
    )
    assert {one.label for one in find(source, images)} == {"animal"}
    source = source.model_copy(update={"labels": {"dog": None}, "split": "test"})
    assert [(one.label, one.split) for one in find(source, images)] == [("cat", "test")] * 2
    with pytest.raises(DataError, match="names 'cow', which is no label there; there are 'cat'"):
        find(source.model_copy(update={"labels": {"cow": "ox"}}), images)


def test_what_a_path_is_is_recognised(images: Path, tmp_path: Path) -> None:
    home, root = tmp_path / "home", images.parent
    assert detect(str(images), LIMITS, home).layout == "folders"
    assert detect(str(root), LIMITS, home).folder == "images"
    assert detect(str(make_archive(images, tmp_path / "a.zip")), LIMITS, home).layout == "folders"
    coco(images)
    found = detect(str(images / "instances.json"), LIMITS, home)
    assert (found.layout, found.path, found.folder) == ("coco", str(images), None)
    (root / "annotations").mkdir()
    os.rename(images / "instances.json", root / "annotations/instances.json")
    found = detect(str(root / "annotations/instances.json"), LIMITS, home)
    assert (found.path, found.folder) == (str(root), "images")
    assert find(found, local_folder(found, LIMITS, home))[0].label == "ear"
    csv(root, "path,label\nimages/cat/0.png,cat\n")
    assert detect(str(root / "labels.csv"), LIMITS, home).layout == "table"
    assert detect(str(root), LIMITS, home).layout == "table"
    with pytest.raises(DataError, match="did you mean 'FashionMNIST'"):
        detect("torchvision:FashonMNIST", LIMITS, home)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match="is no COCO file"):
        detect(str(tmp_path / "x.json"), LIMITS, home)
