"""`visionloop training`: what is tried out before a long training, on real images."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from typer.testing import CliRunner, Result

from flows.cli import app
from tasks.training.batch_size import batch_sizes
from tasks.training.learner import Learner
from tasks.training.rehearsal import rehearsal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(workspace: Callable[..., Path], enter: Callable[[Path], None]) -> Path:
    """300 prepared training images of 8×8 pixels, and the settings to train on them."""
    folder = workspace("repository")
    shutil.copy(ROOT / "dvc.yaml", folder)
    enter(folder)
    return folder


def visionloop(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_rates_are_named_and_plotted(repository: Path):
    result = visionloop("training", "lr-range", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert 1e-4 < found["steepest"] < found["highest"] < 10
    assert found["current"] == 0.1
    assert (repository / found["plot"]).is_file()
    assert not (repository / "data" / "model").exists()


def test_the_largest_batch_is_no_larger_than_the_training_split(repository: Path):
    result = visionloop("training", "batch-size", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [one["images"] for one in found["tried"]] == [8, 16, 32, 64, 128, 256]
    assert found["largest"] == 256
    assert all(one["images_per_second"] > 0 for one in found["tried"])
    shown = visionloop("training", "batch-size").stdout
    assert "the largest that fits is 256" in shown


def test_a_batch_that_runs_out_of_memory_ends_the_search(
    repository: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on a GPU, where the allocator says so."""
    update = Learner.update

    def small(self: Learner, batches: object, parts: int, images: int, step: int) -> object:
        if images >= 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return update(self, batches, parts, images, step)

    monkeypatch.setattr(Learner, "update", small)
    *fitting, last = batch_sizes(*rehearsal())
    assert [one.images for one in fitting] == [8, 16, 32]
    assert last.images == 64
    assert "too little memory for train.batch_size 64" in str(last.reason)


def test_on_a_cpu_a_batch_is_not_tried_that_free_memory_would_not_hold(
    repository: Path, monkeypatch: pytest.MonkeyPatch
):
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=-(10**12)))
    found = list(batch_sizes(*rehearsal()))
    assert [one.images for one in found] == [8, 16]
    assert "more than is free" in str(found[-1].reason)


def test_the_shares_of_a_step_and_where_the_rest_is(repository: Path):
    result = visionloop("training", "profile")
    assert result.exit_code == 0, result.output
    assert "backward" in result.stdout
    assert "data/profile/trace.json" in result.stdout
    assert (repository / "data/profile/table.txt").is_file()


def test_without_images_the_way_out_is_named(repository: Path):
    (repository / "data" / "shards").unlink()
    for command in ("lr-range", "batch-size", "profile"):
        result = visionloop("training", command)
        assert result.exit_code == 2
        assert "dvc repro prepare" in result.stderr
