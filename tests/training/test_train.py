"""The step `train` as the pipeline runs it: killed with SIGKILL, and run again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from steps import WILD, contents, killed, table

from tasks.data.shards import Shards
from tasks.errors import ParamsError, TrainingError
from tasks.tracking import read_events
from tasks.training import train
from tasks.training.models import load_model

OVERSAMPLED = {
    "sampling": "oversample",
    "class_weights": "none",
    "beta": 0.99,
    "focal_gamma": 0.0,
    "logit_adjustment": 0.0,
}
Workspace = Callable[..., Path]


def write_best(folder: Path, **values: object) -> None:
    (folder / "data" / "tune").mkdir()
    facts = {"trial": 0, "value": 0.1, "accuracy": 0.9}
    (folder / "data" / "tune" / "best.yaml").write_text(json.dumps({**values, **facts}))


def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(
    workspace: Workspace, enter: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    folders = [workspace(name, epochs=25, patience=25) for name in ("unbroken", "killed")]
    for folder in folders:
        write_best(folder, lr=0.07, augment={"rotate": 3.0})
    checkpoints = folders[1] / "home" / "checkpoints"
    killed(folders[1], "tasks.training.train", lambda: any(checkpoints.glob("*/checkpoint.pt")))
    for folder in folders:
        enter(folder)
        with caplog.at_level("INFO"):
            train.main()
    assert "went on from" in caplog.text
    assert contents(folders[0] / "data" / "model") == contents(folders[1] / "data" / "model")
    curves = [(folder / "data" / "plots" / "curves.csv").read_bytes() for folder in folders]
    assert curves[0] == curves[1]
    key = json.loads(Path("data/model/run.json").read_text())["run_key"]
    events = read_events(Path("home/tracking") / key)
    metrics = [event for event in events if event["type"] == "metrics"]
    epochs = {event["step"] for event in metrics if "train_loss" in event["values"]}
    assert epochs == set(range(1, len(curves[0].splitlines())))
    recorded = {
        event["step"]: event["values"] for event in metrics if "steps/lr" in event["values"]
    }
    assert set(recorded) == set(range(4, 25 * 9 + 1, 4))  # 300 images in batches of 32
    assert set(recorded[4]) == {
        f"steps/{name}"
        for name in ("loss", "gradient_norm", "lr", "images_per_second", "memory_mb")
    }


def test_training_takes_the_best_values_and_writes_its_outputs(
    workspace: Workspace, enter: Callable[[Path], None], shards: Shards
):
    enter(workspace("one", epochs=2))
    write_best(Path(), lr=0.07, width=6, augment={"rotate": 3.0})
    train.main()
    _, spec = load_model(Path("data/model"))
    assert (spec.width, spec.size, spec.classes) == (6, 8, ("0", "1", "2", "3"))
    key = json.loads(Path("data/model/run.json").read_text())["run_key"]
    events = read_events(Path("home/tracking") / key)
    params = next(event["values"] for event in events if event["type"] == "params")
    assert (params["train.lr"], params["train.augment.rotate"]) == (0.07, 3.0)
    dataset = next(event for event in events if event["type"] == "dataset")
    assert dataset["counts"] == {"train": 300, "validation": 120, "test": 120}
    assert dataset["digest"] == shards.digest
    assert events[-1]["status"] == "FINISHED"
    rows = table("data/plots/curves.csv")
    metrics = json.loads(Path("data/metrics/train.json").read_text())
    best = rows[metrics["best_epoch"] - 1]
    assert float(best["validation_accuracy"]) == metrics["validation_accuracy"]
    cost = json.loads(Path("data/metrics/train_cost.json").read_text())
    assert cost["seconds"] > 0
    assert cost["device"] == "cpu"


def test_training_shows_what_it_sees_before_it_starts_and_each_class_after_it(
    workspace: Workspace, enter: Callable[[Path], None]
):
    enter(workspace("one", epochs=2, imbalance=OVERSAMPLED))
    write_best(Path(), lr=0.07)
    train.main()
    (run,) = Path("home/tracking").glob("train-*")
    events = read_events(run)
    order = [event.get("path") or event["type"] for event in events]
    assert order.index("plots/preview.png") < order.index("metrics")
    assert "plots/validation_classes.csv" in order
    assert (run / "files/plots/preview.png").read_bytes() == Path(
        "data/plots/preview.png"
    ).read_bytes()
    rows = table("data/plots/validation_classes.csv")
    assert [row["label"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["remedy"] for row in rows} == {"oversample"}
    assert len({row["shown_per_epoch"] for row in rows}) == 1
    assert sum(int(row["validation_images"]) for row in rows) == 120
    metrics = json.loads(Path("data/metrics/train.json").read_text())
    hits = sum(float(row["recall"]) * int(row["validation_images"]) for row in rows)
    assert hits / 120 == pytest.approx(metrics["validation_accuracy"])
    worst = min(float(row["recall"]) for row in rows)
    assert metrics["validation_worst_recall"] == worst


def test_a_trained_model_is_not_trained_again(
    workspace: Workspace, enter: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    enter(workspace("one", epochs=2))
    write_best(Path(), lr=0.07)
    train.main()
    first = contents(Path("data/model"))
    caplog.clear()
    with caplog.at_level("INFO"):
        train.main()
    assert contents(Path("data/model")) == first
    assert "train loss" not in caplog.text


def test_best_values_that_do_not_fit_are_named(workspace: Workspace, enter: Callable[[Path], None]):
    enter(workspace("one"))
    write_best(Path(), lr=70.0)
    with pytest.raises(ParamsError, match=r"best\.yaml: lr: .*70"):
        train.main()


def test_a_diverged_training_is_recorded_and_writes_nothing(
    workspace: Workspace, enter: Callable[[Path], None]
):
    enter(workspace("one", **WILD))
    write_best(Path())
    with pytest.raises(TrainingError, match=r"diverged in epoch \d+"):
        train.main()
    assert not Path("data/model").exists()
    (run,) = Path("home/tracking").glob("train-*")
    assert read_events(run)[-1]["status"] == "FAILED"
