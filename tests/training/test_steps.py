"""The steps as the pipeline runs them: killed with SIGKILL, and run again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.data.shards import Shards
from tasks.errors import ParamsError, TrainingError
from tasks.files import sha256
from tasks.params import read_yaml
from tasks.tracking import read_events
from tasks.training import lr_range, profile, train, tune
from tasks.training.models import load_model

ROOT = Path(__file__).parents[2]
TUNE = {
    "trials": 4,
    "minutes": 60.0,
    "epochs": 3,
    "seed": 0,
    "pruner": "hyperband",
    "space": {
        "lr": {"type": "float", "low": 0.02, "high": 0.3, "log": True},
        "augment.rotate": {"type": "float", "low": 0.0, "high": 15.0},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adamw"]},
    },
}
# Each step multiplies the weights by 1 - lr * weight_decay: beyond all bounds.
WILD = {"lr": 10.0, "weight_decay": 1.0, "epochs": 10}
Workspace = Callable[..., Path]


@pytest.fixture
def workspace(tmp_path: Path, shards: Shards, train_values: dict[str, Any]) -> Workspace:
    """Makes a directory as `dvc repro` finds it before `tune`; state goes to its home/."""

    def make(name: str, tune: dict[str, Any] | None = None, **train: Any) -> Path:
        folder = tmp_path / name
        (folder / "conf").mkdir(parents=True)
        (folder / "data").mkdir()
        (folder / "data" / "shards").symlink_to(shards.path)
        values = read_yaml(ROOT / "conf" / "presets" / "quickstart.yaml")
        values["tune"] = {**TUNE, **(tune or {})}
        values["train"] = {**train_values, **train}
        (folder / "conf" / "params.yaml").write_text(json.dumps(values), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a workspace the current one of this process."""

    def change(folder: Path) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("VISIONLOOP_HOME", str(folder / "home"))

    return change


def killed(folder: Path, module: str, ready: Callable[[], bool]) -> None:
    """Start the step as a process of its own and SIGKILL it as soon as it is `ready`."""
    environment = {**os.environ, "VISIONLOOP_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module]
    with open(folder / "log", "w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=output)
    while process.poll() is None and not ready():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (folder / "log").read_text()


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir()}


def table(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


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


def test_a_killed_sweep_ends_as_an_unbroken_one(
    workspace: Workspace, enter: Callable[[Path], None]
):
    folders = [workspace("unbroken"), workspace("killed")]
    tracking = folders[1] / "home" / "tracking"
    third = "tune-*-trial-2/events.jsonl"
    killed(folders[1], "tasks.training.tune", lambda: any(tracking.glob(third)))
    for folder in folders:
        enter(folder)
        tune.main()
    outcomes = [contents(folder / "data" / "tune") for folder in folders]
    assert set(outcomes[0]) == {"best.yaml", "trials.csv", "study.html"}
    assert outcomes[0] == outcomes[1]
    rows = table("data/tune/trials.csv")
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]


def test_a_sweep_starts_from_todays_values_and_records_every_trial_below_it(
    workspace: Workspace, enter: Callable[[Path], None]
):
    enter(workspace("one", tune={"trials": 3, "pruner": "none"}))
    tune.main()
    rows = table("data/tune/trials.csv")
    assert (float(rows[0]["lr"]), float(rows[0]["augment.rotate"])) == (0.1, 5.0)
    best = read_yaml("data/tune/best.yaml")
    assert best["value"] == min(float(row["value"]) for row in rows)
    assert best["lr"] == float(rows[best["trial"]]["lr"])
    assert best["augment"]["rotate"] == float(rows[best["trial"]]["augment.rotate"])
    parents = [path for path in Path("home/tracking").iterdir() if "trial" not in path.name]
    for number in range(3):
        events = read_events(Path(f"{parents[0]}-trial-{number}"))
        assert events[0]["parent"] == parents[0].name
        steps = [event["step"] for event in events if event["type"] == "metrics"]
        assert steps == [1, 2, 3]
        assert events[-1]["status"] == "FINISHED"


def test_more_trials_go_on_with_the_study_and_fewer_look_back(
    workspace: Workspace, enter: Callable[[Path], None]
):
    enter(workspace("one", tune={"trials": 2}))
    tune.main()
    two = Path("data/tune/trials.csv").read_text()
    _set_trials(3)
    tune.main()
    assert Path("data/tune/trials.csv").read_text().splitlines()[:3] == two.splitlines()
    assert len(list(Path("home/tracking").glob("*-trial-*"))) == 3
    _set_trials(2)
    tune.main()
    assert Path("data/tune/trials.csv").read_text() == two


def test_a_failed_trial_is_recorded_and_does_not_end_the_sweep(
    workspace: Workspace, enter: Callable[[Path], None]
):
    space = {"lr": {"type": "categorical", "choices": [0.01, 10.0]}}
    budget = {"trials": 4, "epochs": 10, "pruner": "none", "space": space}
    enter(workspace("one", tune=budget, **WILD))
    tune.main()
    rows = table("data/tune/trials.csv")
    states = {row["lr"]: row["state"] for row in rows}
    assert states == {"10.0": "FAIL", "0.01": "COMPLETE"}
    assert "diverged" in rows[0]["error"]
    (run,) = Path("home/tracking").glob("*-trial-0")
    assert read_events(run)[-1]["status"] == "FAILED"
    assert read_yaml("data/tune/best.yaml")["lr"] == 0.01


def test_a_sweep_of_failures_says_so(workspace: Workspace, enter: Callable[[Path], None]):
    space = {"seed": {"type": "int", "low": 0, "high": 9}}
    budget = {"trials": 2, "epochs": 10, "pruner": "none", "space": space}
    enter(workspace("one", tune=budget, **WILD))
    with pytest.raises(TrainingError, match=r"all 2 trials of the sweep failed.*diverged"):
        tune.main()
    assert not Path("data/tune").exists()


def test_a_space_beyond_the_schema_is_refused_before_any_work(
    workspace: Workspace, enter: Callable[[Path], None]
):
    space = {"lr": {"type": "float", "low": 0.1, "high": 20.0}}
    enter(workspace("one", tune={"space": space}))
    with pytest.raises(ParamsError, match=r"tune\.space\.lr: lr: .*20"):
        tune.main()
    assert not Path("home").exists()


def test_what_comes_before_a_long_run_writes_its_files_and_no_model(
    workspace: Workspace, enter: Callable[[Path], None]
):
    enter(workspace("one", batch_size=16))
    lr_range.main()
    profile.main()
    assert {path.name for path in Path("data/lr_range").iterdir()} == {"range.csv", "range.html"}
    assert {path.name for path in Path("data/profile").iterdir()} == {"trace.json", "table.txt"}
    assert not Path("data/model").exists()
    assert not Path("home").exists()


def _set_trials(count: int) -> None:
    file = Path("conf/params.yaml")
    values = json.loads(file.read_text())
    values["tune"]["trials"] = count
    file.write_text(json.dumps(values))
