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
from tasks.params import load_params, read_yaml
from tasks.tracking import read_events
from tasks.training import lr_range, profile, train, tune
from tasks.training.models import load_model

ROOT = Path(__file__).parents[2]
PLOTS = ("history", "parallel_coordinate", "importance", "slice")
# Each step multiplies the weights by 1 - lr * weight_decay: beyond all bounds.
WILD = {"lr": 10.0, "weight_decay": 1.0, "epochs": 10}
OVERSAMPLED = {
    "sampling": "oversample",
    "class_weights": "none",
    "beta": 0.99,
    "focal_gamma": 0.0,
    "logit_adjustment": 0.0,
}
Workspace = Callable[..., Path]


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
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path) for path in files}


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


def test_a_sweep_starts_from_the_presets_value_where_a_key_is_null(
    workspace: Workspace, enter: Callable[[Path], None], train_values: dict[str, Any]
):
    space = {"augment.rotate": {"type": "float", "low": 0.0, "high": 15.0}}
    augment = {**train_values["augment"], "preset": "standard", "rotate": None}
    enter(workspace("one", tune={"trials": 1, "epochs": 1, "space": space}, augment=augment))
    tune.main()
    assert float(table("data/tune/trials.csv")[0]["augment.rotate"]) == 10.0


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
    plots = {f"plots/{name}.png" for name in PLOTS}
    assert set(outcomes[0]) == {"best.yaml", "study.json", "trials.csv", "study.html", *plots}
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
        assert steps == [1, 2, 3, None]
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


def test_a_condition_is_checked_with_what_it_asks_for(
    workspace: Workspace, enter: Callable[[Path], None]
):
    space = {"width": {"type": "int", "low": 4, "high": 8, "when": {"architecture": ["resnet9"]}}}
    enter(workspace("one", tune={"space": space}))
    with pytest.raises(ParamsError, match=r"tune\.space\.width: architecture: .*resnet9"):
        tune.main()
    assert not Path("home").exists()


def test_accuracy_latency_and_size_give_a_front_from_which_the_budget_takes(
    workspace: Workspace, enter: Callable[[Path], None]
):
    search = {
        "objectives": ["accuracy", "latency", "size"],
        "pruner": "none",
        "epochs": 2,
        "keep": 4,
        "space": {"width": {"type": "categorical", "choices": [4, 48]}},
    }
    folder = workspace("one", tune=search)
    enter(folder)
    tune.main()
    rows = table("data/tune/trials.csv")
    cost = {row["width"]: float(row["size_mb"]) for row in rows}
    latency = {row["width"]: float(row["latency_ms"]) for row in rows}
    assert cost["4"] < 0.1 < cost["48"]
    assert latency["4"] < latency["48"]
    assert "Pareto front" in Path("data/tune/study.html").read_text()
    assert Path("data/tune/plots/pareto_front.png").stat().st_size > 1000

    values = json.loads(Path("conf/params.yaml").read_text())
    values["budget"]["max_size_mb"] = 0.1
    Path("conf/params.yaml").write_text(json.dumps(values))
    tune.main()  # the same study: the budget only chooses
    best = read_yaml("data/tune/best.yaml")
    assert (best["width"], best["size_mb"]) == (4, cost["4"])
    assert len(table("data/tune/trials.csv")) == len(rows)
    assert train.apply_best(load_params().train).width == 4


def test_a_trial_too_large_for_the_memory_fails_and_the_sweep_goes_on(workspace: Workspace):
    space = {"width": {"type": "categorical", "choices": [4, 512]}}
    folder = workspace("one", tune={"space": space, "pruner": "none", "epochs": 1, "seed": 1})
    code = (
        "import psutil, resource, torchvision; from tasks.training import tune;"
        "size = psutil.Process().memory_info().vms + (800 << 20);"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size)); tune.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VISIONLOOP_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((folder / "data/tune/trials.csv").read_text().splitlines()))
    assert {row["width"]: row["state"] for row in rows} == {"4": "COMPLETE", "512": "FAIL"}
    assert any("too little memory for train.batch_size 32" in row["error"] for row in rows)


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
