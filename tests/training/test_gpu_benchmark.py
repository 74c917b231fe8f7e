"""benchmarks.gpu_training where there is no GPU: what it says, and that both its loops learn."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import _plain_loop, gpu_training
from tasks.data.shards import Shards
from tasks.params import apply_overrides, check_params, read_yaml
from tasks.schema import Recipe, Train

SMALL = Path(__file__).parents[2] / "conf/presets/small.yaml"


@pytest.fixture
def task(shards: Shards, config: Callable[..., Train]) -> _plain_loop.Task:
    light = {**config().augment.model_dump(), "padding_crop": 0.125, "shift": 0.0, "rotate": 0.0}
    settings = config(epochs=6, batch_size=16, width=8, augment=light, patience=6)
    test = shards.split("test")
    return _plain_loop.Task(shards, settings, (test.images, test.labels), torch.device("cpu"))


@pytest.mark.parametrize("loop", [gpu_training.ours, _plain_loop.peer])
def test_both_loops_learn_and_are_timed_after_every_epoch(
    loop: Callable[..., _plain_loop.Run], task: _plain_loop.Task
):
    run = loop(task, task.config)
    assert len(run.accuracies) == len(run.seconds) == 6
    assert sorted(run.seconds) == run.seconds
    assert run.accuracies[-1] > 0.8 > run.accuracies[0]  # of four classes
    first = next(at for at, accuracy in enumerate(run.accuracies) if accuracy > 0.8)
    assert run.until(0.8) == run.seconds[first]
    assert run.until(1.01) is None


def test_the_plain_loop_shows_each_image_at_a_place_of_its_own():
    torch.manual_seed(0)
    pixels = torch.zeros(2, 3, 8, 8)
    pixels[1, :, 4, 3] = 1
    shown = _plain_loop.changes(Recipe(flip=True, padding_crop=0.125, cutout=0.25), 8)(
        pixels, torch.ones(400, dtype=torch.long)
    )
    assert shown.shape == (400, 3, 8, 8)
    lit = shown[:, 0].nonzero()[:, 1:]
    assert {tuple(place.tolist()) for place in lit} == {
        (y, x) for y in (3, 4, 5) for x in range(2, 6)
    }
    assert len(lit) == pytest.approx(400 * (1 - 4 / 64), abs=25)  # the rest is cut out


def test_without_cuda_it_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_training"])
    with pytest.raises(SystemExit) as ended:
        gpu_training.main()
    assert ended.value.code == os.EX_UNAVAILABLE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no CUDA device here")
    assert "--device cpu" in line


def test_the_recipe_is_one_that_a_user_could_write():
    train = check_params(apply_overrides(read_yaml(SMALL), gpu_training.RECIPE)).train
    recipe = train.augment.recipe
    assert (recipe.flip, recipe.padding_crop, recipe.cutout) == (True, 0.125, 0.25)
    assert (recipe.shift, recipe.rotate, recipe.brightness) == (0, 0, 0)
