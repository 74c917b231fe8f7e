"""The loop from a fresh clone with no server running, and again with little or nothing changed."""

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_first_run_promotes_a_model_that_agrees_with_fp32(first_run: dict[str, Any]) -> None:
    measured = first_run["model"]["measurements"]
    assert first_run["data"]["images"] == 1797
    assert sum(first_run["data"]["splits"].values()) == first_run["data"]["kept"]
    assert measured["accuracy_low"] < measured["accuracy"] < measured["accuracy_high"]
    assert measured["accuracy"] > 0.9  # the short training; `make demo` reaches more
    assert measured["agreement_with_fp32"] > 0.9  # its budget
    registry = first_run["registry"]
    assert (registry["version"], registry["alias"]) == (1, "champion")
    assert registry["created"]
    assert registry["promoted"]


def test_a_rerun_with_nothing_changed_does_nothing(clone: Any, first_run: dict[str, Any]) -> None:
    lock = (clone.root / "dvc.lock").read_bytes()
    again = clone.json("visionloop", "run", "--json")
    assert again["changed"] == []
    assert again["registry"]["version"] == 1
    assert not again["registry"]["created"]
    assert again["model"] == first_run["model"]
    assert (clone.root / "dvc.lock").read_bytes() == lock


def test_overrides_change_one_run_and_not_the_working_tree(
    clone: Any, first_run: dict[str, Any]
) -> None:
    before = {name: (clone.root / name).read_bytes() for name in ("conf/params.yaml", "dvc.lock")}
    run = clone.json("visionloop", "run", "--json", "--set", "evaluate.resamples=400")
    assert run["changed"] == ["evaluate"]
    assert run["model"]["lineage"]["params_hash"] != first_run["model"]["lineage"]["params_hash"]
    assert {name: (clone.root / name).read_bytes() for name in before} == before
    assert clone.check("git", "status", "--porcelain").split() in ([], ["??", "dvc.lock"])


def test_metrics_plots_and_params_are_dvcs(clone: Any, first_run: dict[str, Any]) -> None:
    metrics = json.loads(clone.check("dvc", "metrics", "show", "--json"))
    files = metrics[""]["data"]
    accuracy = files["data/metrics/evaluate.json"]["data"]
    assert first_run["model"]["measurements"]["accuracy"] in list(_numbers(accuracy))
    assert "data/metrics/train.json" in files
    plots = clone.check("dvc", "plots", "show", "--json")
    assert "curves.csv" in plots
    assert "confusion" in plots


def test_a_mistake_stops_before_any_work(clone: Any, first_run: dict[str, Any]) -> None:
    wrong = clone.run("visionloop", "run", "--set", "train.lrr=0.1")
    assert wrong.returncode == 2
    assert "did you mean 'train.lr'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_edited_data_stop_a_run_until_they_are_repaired(
    clone: Any, first_run: dict[str, Any]
) -> None:
    file = clone.root / "data/splits.parquet"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content + b"x")
    stopped = clone.run("visionloop", "run", "--json")
    assert stopped.returncode == 2
    assert "data/splits.parquet: has md5" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert file.read_bytes() == content + b"x"
    clone.check("visionloop", "data", "verify", "--repair")
    assert file.read_bytes() == content
    assert clone.json("visionloop", "run", "--json")["changed"] == []


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value
