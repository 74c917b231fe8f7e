"""Every kind of source gives the images it should, and says what is wrong with it."""

import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
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
from tasks.schema import FolderSource, Ingest, TorchvisionSource

LIMITS = load_params(Path(__file__).parents[2] / "conf/params.yaml").ingest


@pytest.fixture
def images(tmp_path: Path, photo: Image.Image) -> Path:
    """Four parts of a photograph: images/{cat,dog}/{0,1}.png."""
    root = tmp_path / "set" / "images"
    for number, name in enumerate(("cat/0", "cat/1", "dog/0", "dog/1")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        left = number * 100
        photo.crop((left, 50, left + 120, 150)).save(root / f"{name}.png")
    return root


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


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, f"wrapped/{file.relative_to(folder)}")
    return target


def tarred(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, "wrapped")
    return target


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_is_unpacked_once_and_again_when_it_changes(
    images: Path, tmp_path: Path, pack: Callable[[Path, Path], Path]
) -> None:
    name = "set.zip" if pack is zipped else "set.tar.gz"
    archive = pack(images, tmp_path / name)
    source = FolderSource(path=str(archive), layout="folders")
    folder = local_folder(source, LIMITS, tmp_path / "home")
    assert [one.path for one in find(source, folder)] == [
        "cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png",
    ]  # fmt: skip
    stamp = (folder / "cat/0.png").stat().st_ino
    assert local_folder(source, LIMITS, tmp_path / "home") == folder
    assert (folder / "cat/0.png").stat().st_ino == stamp
    (images / "dog/1.png").unlink()
    archive.unlink()
    pack(images, archive)
    assert len(find(source, local_folder(source, LIMITS, tmp_path / "home"))) == 3


def limits(**changes: object) -> Ingest:
    return LIMITS.model_copy(update=changes)


def refused(archive: Path, home: Path, allowed: Ingest = LIMITS) -> str:
    source = FolderSource(path=str(archive), layout="folders")
    with pytest.raises(DataError) as caught:
        local_folder(source, allowed, home)
    assert not home.exists() or list(home.rglob("*.png")) == []
    return str(caught.value)


def test_an_archive_that_is_not_safe_is_refused(images: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        archive.write(images / "cat/0.png", "cat/0.png")
        archive.write(images / "cat/0.png", "../../outside.png")
    assert "'../../outside.png' leads out of it" in refused(tmp_path / "up.zip", home)
    with tarfile.open(tmp_path / "root.tar", "w") as opened:
        opened.add(images / "cat/0.png", "x")
        opened.getmembers()[0].name = "x"
        info = opened.gettarinfo(images / "cat/0.png", "/etc/outside.png")
        info.name = "/etc/outside.png"
        with open(images / "cat/0.png", "rb") as stream:
            opened.addfile(info, stream)
    assert "leads out of it" in refused(tmp_path / "root.tar", home)
    assert "more than 3 files" in refused(
        zipped(images, tmp_path / "many.zip"), home, limits(max_archive_files=3)
    )
    assert "1e-05 GB" in refused(tmp_path / "many.zip", home, limits(max_archive_gb=1e-5))


def test_links_in_an_archive_are_passed_over(images: Path, tmp_path: Path) -> None:
    (images / "cat/link.png").symlink_to("/etc/passwd")
    (images / "dog/up").symlink_to("../..")
    archive = tarred(images, tmp_path / "links.tar.gz")
    source = FolderSource(path=str(archive), layout="folders")
    found = find(source, local_folder(source, LIMITS, tmp_path / "home"))
    assert len(found) == 4


@pytest.mark.parametrize("cut", [0, 30, 0.5, 0.9])
def test_a_damaged_archive_is_named_and_leaves_nothing(
    images: Path, tmp_path: Path, cut: float
) -> None:
    for archive in (zipped(images, tmp_path / "a.zip"), tarred(images, tmp_path / "a.tar.gz")):
        data = archive.read_bytes()
        archive.write_bytes(data[: int(cut if cut > 1 else cut * len(data))])
        assert f"{archive} cannot be unpacked" in refused(archive, tmp_path / "home")


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.zip", tmp_path / "home")


def test_what_a_path_is_is_recognised(images: Path, tmp_path: Path) -> None:
    home, root = tmp_path / "home", images.parent
    assert detect(str(images), LIMITS, home).layout == "folders"
    assert detect(str(root), LIMITS, home).folder == "images"
    assert detect(str(zipped(images, tmp_path / "a.zip")), LIMITS, home).layout == "folders"
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


@pytest.fixture
def bucket(images: Path) -> Iterator[str]:
    """The images in fsspec's own store in memory, which speaks as an object store does."""
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(str(images), "/photos/set", recursive=True)
    yield "memory://photos/set"
    store.rm("/photos", recursive=True)


def test_a_bucket_is_mirrored_and_only_changes_are_fetched(
    bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import fsspec

    source, home = FolderSource(path=bucket, layout="folders"), tmp_path / "home"
    caplog.set_level("INFO")
    folder = local_folder(source, LIMITS, home)
    assert len(find(source, folder)) == 4
    assert "4 objects, 4 new or changed" in caplog.text
    store = fsspec.filesystem("memory")
    store.rm("/photos/set/cat/0.png")
    store.pipe("/photos/set/dog/1.png", b"changed")
    store.pipe("/photos/set/dog/2.png", b"new")
    caplog.clear()
    assert local_folder(source, LIMITS, home) == folder
    assert "4 objects, 2 new or changed" in caplog.text
    assert (folder / "dog/1.png").read_bytes() == b"changed"
    assert not (folder / "cat/0.png").exists()


def test_an_interrupted_mirror_goes_on(bucket: str, tmp_path: Path) -> None:
    source, home = FolderSource(path=bucket, layout="folders"), tmp_path / "home"
    folder = local_folder(source, LIMITS, home)
    whole = (folder / "cat/0.png").read_bytes()
    index = json.loads((folder / ".index.json").read_text())
    del index["cat/0.png"]  # as when it was being fetched
    (folder / ".index.json").write_text(json.dumps(index))
    (folder / "cat/0.png").write_bytes(whole[:50])
    (folder / "cat/1.png").unlink()
    local_folder(source, LIMITS, home)
    assert (folder / "cat/0.png").read_bytes() == whole
    assert (folder / "cat/1.png").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nowhere/at/all", "holds no object"),
        ("nonsense://bucket/x", "cannot be read: ValueError: Protocol not known"),
        ("http://127.0.0.1:9/x", "holds no object|cannot be read"),
    ],
)
def test_a_bucket_that_cannot_be_read_is_named(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        local_folder(FolderSource(path=url, layout="folders"), LIMITS, tmp_path)
    assert url in str(caught.value)


def idx(path: Path, values: np.ndarray) -> None:
    """A file in MNIST's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def test_a_torchvision_set_on_disk_is_written_out_with_its_test_split(
    tmp_path: Path, digit_images: np.ndarray, digit_labels: np.ndarray
) -> None:
    raw = tmp_path / "root/MNIST/raw"
    for name, part in (("train", slice(0, 60)), ("t10k", slice(60, 80))):
        idx(raw / f"{name}-images-idx3-ubyte", digit_images[part, :, :, 0])
        idx(raw / f"{name}-labels-idx1-ubyte", digit_labels[part])
    source = TorchvisionSource(path=str(tmp_path / "root"), layout="torchvision", dataset="MNIST")
    folder = local_folder(source, LIMITS, tmp_path / "home")
    found = find(source, folder)
    assert [one.split for one in found].count("test") == 20
    first = next(one for one in found if one.path.endswith("000000.png") and one.split == "train")
    np.testing.assert_array_equal(read(Path(first.file), 10**6), digit_images[0])
    assert str(first.label).startswith(str(digit_labels[0]))


def test_a_torchvision_set_that_cannot_be_fetched_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    source = TorchvisionSource(path=str(tmp_path / "root"), layout="torchvision", dataset="USPS")
    with pytest.raises(DataError, match="Without a network, put the files"):
        local_folder(source, LIMITS, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home/sources").iterdir()] == [".lock"]
