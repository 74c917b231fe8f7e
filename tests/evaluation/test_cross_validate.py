"""Cross-validation on real digits: every image judged once, by a model that never saw it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks.bundle import InputContract
from tasks.data.folds import folds
from tasks.data.shards import open_shards, write_index
from tasks.errors import DataError
from tasks.evaluation import cross_validate
from tasks.evaluation.fold_scores import interval, scores_of_fold
from tasks.evaluation.label_suspects import read_suspects
from tasks.files import sha256
from tasks.params import read_yaml
from tasks.pixels import fit, statistics
from tasks.tracking import read_events
from tasks.training.inference import predict
from tasks.training.models import load_model

ROOT = Path(__file__).parents[2]
SIZE, FOLDS = 8, 3
COUNTS = {"train": 150, "validation": 60, "test": 30}
Workspace = Callable[..., Path]


@pytest.fixture
def workspace(tmp_path: Path, digit_images: np.ndarray, digit_labels: np.ndarray) -> Workspace:
    """Makes a directory as `dvc repro` finds it before `cross_validate`."""

    def make(
        name: str, margin: int = 0, with_folds: bool = True, devices: int = 1, **section: object
    ) -> Path:
        folder = tmp_path / name
        shards = folder / "data" / "shards"
        shards.mkdir(parents=True)
        few, start = np.flatnonzero(digit_labels < 3), 0
        for split, count in COUNTS.items():
            rows = few[start : start + count]
            start += count
            side = SIZE + (margin if split == "train" else 0)
            images = np.stack([fit(digit_images[i], side, "stretch") for i in rows])
            hashes = [blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
            np.save(shards / f"{split}_images.npy", images)
            np.save(shards / f"{split}_labels.npy", digit_labels[rows].astype(np.int64))
            np.save(shards / f"{split}_statistics.npy", np.stack([statistics(i) for i in images]))
            np.save(shards / f"{split}_hashes.npy", np.array(hashes, "S32"))
            (shards / f"{split}_paths.json").write_text(json.dumps([f"{i}.png" for i in rows]))
            if with_folds and split != "test":
                np.save(shards / f"{split}_folds.npy", rows.astype(np.int64) % FOLDS)
        resize = "crop" if margin else "stretch"
        contract = InputContract(size=SIZE, resize=resize, margin=margin, max_pixels=10_000)
        write_index(shards, ["0", "1", "2"], contract)
        values = read_yaml(ROOT / "conf" / "presets" / "quickstart.yaml")
        values["train"] |= {"width": 4, "epochs": 4, "batch_size": 32, "device": "cpu"}
        values["train"]["devices"] = devices
        values["cross_validate"] |= {"enabled": True, **section}
        (folder / "conf").mkdir()
        with open(folder / "conf" / "params.yaml", "w") as stream:
            YAML().dump(values, stream)
        (folder / "data" / "tune").mkdir()
        (folder / "data" / "tune" / "best.yaml").write_text("lr: 0.1\ntrial: 0\nvalue: 0.1\n")
        return folder

    return make


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("VISIONLOOP_HOME", str(folder / "home"))

    return change


def test_each_image_is_judged_once_by_a_model_that_never_saw_it(
    workspace: Workspace, enter: Callable[[Path], None]
):
    enter(workspace("one"))
    cross_validate.main()
    shards = open_shards()
    kept = np.load("data/cross_validation/out_of_fold.npz", allow_pickle=False)
    both = [shards.split(name) for name in ("train", "validation")]
    assert sorted(kept["hashes"]) == sorted(np.concatenate([split.hashes for split in both]))
    assert kept["probabilities"].shape == (210, 3)
    for fold in folds(shards):
        model, spec = load_model(Path(f"data/cross_validation/fold-{fold.number}"))
        assert not set(fold.train.hashes) & set(fold.held_out.hashes)
        mine = kept["fold"] == fold.number
        assert kept["paths"][mine].tolist() == fold.held_out.paths
        logits = predict(model, fold.held_out.images, spec)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        wanted = powers / powers.sum(1, keepdims=True)
        np.testing.assert_allclose(kept["probabilities"][mine], wanted, atol=1e-6)

    metrics = json.loads(Path("data/metrics/cross_validate.json").read_text())
    rows = list(csv.DictReader(Path("data/cross_validation/folds.csv").read_text().splitlines()))
    accuracies = [float(row["accuracy"]) for row in rows]
    assert metrics["folds"] == len(rows) == FOLDS
    assert metrics["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    right = kept["probabilities"].argmax(1) == kept["labels"]
    assert metrics["accuracy"]["pooled"] == pytest.approx(right.mean())
    assert metrics["accuracy"]["low"] < np.mean(accuracies) < metrics["accuracy"]["high"]
    assert right.mean() > 0.7, "it learnt nothing"
    page = Path("data/cross_validation/folds.html").read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http-equiv", "")

    suspects = read_suspects(Path("data/cross_validation/suspects.csv"))
    assert metrics["label_suspects"] == len(suspects)
    assert not {one.pixel_hash.encode() for one in suspects} & set(shards.split("test").hashes)
    assert "test split was not looked at" in Path("data/cross_validation/suspects.html").read_text()

    runs = {path.name: read_events(path) for path in Path("home/tracking").iterdir()}
    (parent,) = [name for name in runs if "-fold-" not in name]
    for number in range(FOLDS):
        events = runs[f"{parent}-fold-{number}"]
        assert events[0]["parent"] == parent
        assert events[-1]["status"] == "FINISHED"
    logged = {k: v for e in runs[parent] if e["type"] == "metrics" for k, v in e["values"].items()}
    assert logged["accuracy_mean"] == metrics["accuracy"]["mean"]
    assert logged["label_suspects"] == len(suspects)
    files = {Path(event["path"]).name for event in runs[parent] if event["type"] == "file"}
    assert {"suspects.csv", "suspects.html"} <= files


def test_a_killed_cross_validation_goes_on_in_its_fold(
    workspace: Workspace, enter: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    unbroken, broken = workspace("unbroken"), workspace("broken")
    environment = {**os.environ, "VISIONLOOP_HOME": str(broken / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tasks.evaluation.cross_validate"]
    process = subprocess.Popen(command, cwd=broken, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(broken.glob("home/checkpoints/*-fold-1/*.pt")):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (broken / "data" / "cross_validation").exists()
    for folder in (unbroken, broken):
        enter(folder)
        with caplog.at_level("INFO"):
            cross_validate.main()
    assert caplog.text.count("went on from") == 2
    names = ("out_of_fold.npz", "folds.csv", "fold-1/model.safetensors")
    for name in names:
        one, other = (folder / "data/cross_validation" / name for folder in (unbroken, broken))
        assert sha256(one) == sha256(other), name


def test_two_processes_give_what_one_gives(workspace: Workspace, enter: Callable[[Path], None]):
    one, two = workspace("one"), workspace("two", devices=2)
    for folder in (one, two):
        enter(folder)
        cross_validate.main()
    kept = [np.load(folder / "data/cross_validation/out_of_fold.npz") for folder in (one, two)]
    np.testing.assert_array_equal(kept[0]["hashes"], kept[1]["hashes"])
    np.testing.assert_allclose(kept[0]["probabilities"], kept[1]["probabilities"], atol=1e-2)
    assert len(list((two / "home" / "tracking").iterdir())) == FOLDS + 1


def test_it_is_off_unless_asked_for(workspace: Workspace, enter: Callable[[Path], None]):
    enter(workspace("one", enabled=False, with_folds=False))
    cross_validate.main()
    assert json.loads(Path("data/metrics/cross_validate.json").read_text()) == {"folds": 0}
    assert not Path("home").exists()


def test_shards_without_folds_are_named(workspace: Workspace, enter: Callable[[Path], None]):
    enter(workspace("one", with_folds=False))
    with pytest.raises(DataError, match=r"holds no folds; set split\.folds"):
        cross_validate.main()


def test_images_with_a_margin_give_their_middle(workspace: Workspace):
    shards = open_shards(workspace("one", margin=4) / "data" / "shards")
    large, small = shards.split("train"), shards.split("validation")
    by_hash = {h: image[2:-2, 2:-2] for h, image in zip(large.hashes, large.images, strict=True)}
    by_hash |= dict(zip(small.hashes, small.images, strict=True))
    for fold in folds(shards):
        for split in (fold.train, fold.held_out):
            assert split.images.shape == (len(split), SIZE, SIZE, 3)
            wanted = np.stack([by_hash[h] for h in split.hashes])
            np.testing.assert_array_equal(split.images[:], wanted)
            np.testing.assert_array_equal(split.images[[3, 1]], wanted[[3, 1]])
            np.testing.assert_array_equal(split.images[2], wanted[2])


def test_the_interval_of_a_share_ends_at_all_of_it():
    found = interval([1.0, 0.9, 1.0], 0.95, 0.0, 1.0)
    assert found.high == 1.0
    assert found.low == pytest.approx(interval([1.0, 0.9, 1.0], 0.95).low)


def test_the_interval_is_students():
    """By hand: 0.924 ± 2.776445 · 0.0260768 / √5; the fold without a value does not count."""
    found = interval([0.9, 0.92, 0.94, 0.9, 0.96, float("nan")], 0.95)
    assert found == pytest.approx((0.924, 0.891621, 0.956379), abs=1e-6)


def test_a_class_that_a_fold_lacks_has_no_recall():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05]], np.float32)
    found = scores_of_fold(probabilities, np.array([0, 1, 1]), ["a", "b", "c"])
    assert found["loss"] == pytest.approx(-np.log([0.8, 0.6, 0.05]).mean())
    assert (found["recall.a"], found["recall.b"], found["worst_recall"]) == (1.0, 0.5, 0.5)
    assert np.isnan(found["recall.c"])
