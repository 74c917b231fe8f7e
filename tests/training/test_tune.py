"""The step `tune` as the pipeline runs it: killed with SIGKILL, and run again."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from steps import WILD, contents, killed, table

from tasks.errors import ParamsError, TrainingError
from tasks.params import load_params, read_yaml
from tasks.tracking import read_events
from tasks.training import train, tune

ROOT = Path(__file__).parents[2]
PLOTS = ("history", "parallel_coordinate", "importance", "slice")
Workspace = Callable[..., Path]


def test_a_sweep_starts_from_the_presets_value_where_a_key_is_null(
    workspace: Workspace, enter: Callable[[Path], None], train_values: dict[str, Any]
):
    space = {"augment.rotate": {"type": "float", "low": 0.0, "high": 15.0}}
    augment = {**train_values["augment"], "preset": "standard", "rotate": None}
    enter(workspace("one", tune={"trials": 1, "epochs": 1, "space": space}, augment=augment))
    tune.main()
    assert float(table("data/tune/trials.csv")[0]["augment.rotate"]) == 10.0


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
    # Which trials are stopped hangs on the study's name too, so some plots may lack trials.
    files = {"best.yaml", "study.json", "trials.csv", "study.html", "plots/history.png"}
    assert files <= set(outcomes[0])
    assert outcomes[0] == outcomes[1]
    rows = table("data/tune/trials.csv")
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]


def test_a_sweep_starts_from_todays_values_and_records_every_trial_below_it(
    workspace: Workspace, enter: Callable[[Path], None]
):
    enter(workspace("one", tune={"trials": 3, "pruner": "none"}))
    tune.main()
    plots = {f"plots/{name}.png" for name in PLOTS}
    files = {"best.yaml", "study.json", "trials.csv", "study.html", *plots}
    assert set(contents(Path("data/tune"))) == files
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


def test_macro_f1_is_searched_for_and_higher_is_better(
    workspace: Workspace, enter: Callable[[Path], None]
):
    space = {"lr": {"type": "categorical", "choices": [0.0001, 0.1]}}
    search = {"objectives": ["macro_f1"], "pruner": "none", "trials": 3, "space": space}
    enter(workspace("one", tune=search, keep_by="macro_f1", lr=0.0001))
    tune.main()
    values = {row["lr"]: float(row["value"]) for row in table("data/tune/trials.csv")}
    best = read_yaml("data/tune/best.yaml")
    assert (best["lr"], best["value"]) == (0.1, values["0.1"])
    assert 0 < values["0.0001"] < values["0.1"] <= 1
    assert "validation macro-F1" in Path("data/tune/study.html").read_text()


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


def _set_trials(count: int) -> None:
    file = Path("conf/params.yaml")
    values = json.loads(file.read_text())
    values["tune"]["trials"] = count
    file.write_text(json.dumps(values))
