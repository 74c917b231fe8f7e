"""Where a bundle comes from: real git repositories, and dvc.lock as DVC writes it."""

import copy
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.evaluation.lineage import dvc_lock_hash, git_commit, read_lineage
from tasks.params import load_params

ROOT = Path(__file__).parents[2]
LOCK = {
    "schema": "2.0",
    "stages": {
        "prepare": {
            "cmd": "python -m tasks.data.prepare",
            "deps": [{"path": "data/splits.parquet", "md5": "a1"}],
            "outs": [{"path": "data/shards", "md5": "b1.dir"}],
        },
        "split": {
            "cmd": "python -m tasks.data.split",
            "outs": [{"path": "data/splits.parquet", "md5": "a1"}],
        },
        "train": {
            "cmd": "python -m tasks.training.train",
            "deps": [{"path": "data/shards", "md5": "b1.dir"}],
            "outs": [{"path": "data/model", "md5": "c1.dir"}],
        },
        "evaluate": {
            "cmd": "python -m tasks.evaluation.evaluate",
            "deps": [{"path": "data/model", "md5": "c1.dir"}],
            "outs": [{"path": "data/bundle", "md5": "d1.dir"}],
        },
        "unrelated": {"cmd": "true", "outs": [{"path": "data/other", "md5": "e1"}]},
    },
}


def locked(tmp_path: Path, stage: str | None = None) -> str:
    """The hash of LOCK, with the first output of `stage` changed."""
    lock = copy.deepcopy(LOCK)
    if stage:
        lock["stages"][stage]["outs"][0]["md5"] = "changed"
    with (tmp_path / "dvc.lock").open("w") as stream:
        YAML().dump(lock, stream)
    return dvc_lock_hash(tmp_path / "dvc.lock")


@pytest.mark.parametrize("stage", ["split", "prepare", "train"])
def test_data_that_changed_upstream_is_another_version(tmp_path, stage):
    assert locked(tmp_path, stage) != locked(tmp_path)


@pytest.mark.parametrize("stage", ["evaluate", "unrelated"])
def test_what_the_bundle_does_not_come_from_changes_nothing(tmp_path, stage):
    assert locked(tmp_path, stage) == locked(tmp_path)


def test_without_a_lock_there_is_no_version(tmp_path):
    assert dvc_lock_hash(tmp_path / "dvc.lock") is None


def test_the_commit_is_gits_and_null_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    assert git_commit(tmp_path) is None  # no commit yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], cwd=tmp_path, check=True)
    done = subprocess.run(["git", "log", "--format=%H"], cwd=tmp_path, capture_output=True)
    assert git_commit(tmp_path) == done.stdout.decode().strip()


def test_only_params_that_make_the_bundle_count(pipeline):
    def hashed(**changes) -> str:
        return read_lineage(load_params("conf/params.yaml", changes)).params_hash

    assert hashed() == hashed(**{"gate.margin": 0.5}) == hashed(**{"serve.max_batch": 7})
    assert hashed() != hashed(**{"train.lr": 0.011})
    assert hashed() != hashed(**{"clean.min_side": 5})
