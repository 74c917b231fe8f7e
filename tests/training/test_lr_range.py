import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.training.learner import Loss
from tasks.training.lr_range import for_range_test, range_test, write
from tasks.training.models import ModelSpec, build
from tasks.training.trainer import Trainer

Config = Callable[..., Train]


def trainer(shards: Shards, spec: ModelSpec, config: Train, loss: Loss | None = None) -> Trainer:
    torch.manual_seed(0)
    splits = shards.split("train"), shards.split("validation")
    return Trainer(build(spec), *splits, spec, for_range_test(config), loss)


def test_the_loss_falls_with_the_rate_until_it_is_too_high(
    shards: Shards, spec: ModelSpec, config: Config, tmp_path: Path
):
    tested = range_test(trainer(shards, spec, config()))
    lowest = tested.losses.argmin()
    assert tested.losses[lowest] < 0.8 * tested.losses[:20].mean()
    assert tested.losses[-1] > 2 * tested.losses[lowest]
    assert tested.rates[0] == pytest.approx(1e-5)
    assert 0.003 < tested.steepest < tested.rates[lowest]
    assert tested.highest == pytest.approx(tested.rates[lowest] / 3)
    write(tested, tmp_path)
    rows = list(csv.DictReader((tmp_path / "range.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == tested.losses.tolist()
    page = (tmp_path / "range.html").read_text()
    assert "learning rate" in page
    assert "<script src=" not in page


def test_it_ends_where_the_loss_is_not_finite(shards: Shards, spec: ModelSpec, config: Config):
    calls = 0

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(logits, labels) * (float("nan") if calls > last else 1)

    last = 30
    assert len(range_test(trainer(shards, spec, config(), loss)).rates) == 30
    calls, last = 0, 3
    with pytest.raises(TrainingError, match=r"lost after 3 steps, at a learning rate of 1\.3e-05"):
        range_test(trainer(shards, spec, config(), loss))
