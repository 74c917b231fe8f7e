import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.training.models import ModelSpec, build
from tasks.training.profile import profile_steps
from tasks.training.trainer import Trainer

Config = Callable[..., Train]


def trainer(shards: Shards, spec: ModelSpec, config: Train) -> Trainer:
    torch.manual_seed(0)
    splits = shards.split("train"), shards.split("validation")
    return Trainer(build(spec), *splits, spec, config)


def test_the_trace_and_the_table_say_where_the_time_went(
    shards: Shards, spec: ModelSpec, config: Config, tmp_path: Path
):
    shares = profile_steps(trainer(shards, spec, config(ema=0.9)), tmp_path / "profile")
    assert set(shares) == {
        "read", "augment", "forward", "backward", "optimizer", "average", "other"
    }  # fmt: skip
    assert sum(shares.values()) == pytest.approx(1, abs=0.02)
    assert all(share > 0 for share in shares.values())
    events = json.loads((tmp_path / "profile/trace.json").read_text())["traceEvents"]
    assert sum(event.get("name") == "backward" for event in events) >= 4  # of 9, less 5 to warm up
    table = (tmp_path / "profile/table.txt").read_text()
    assert f"{shares['augment']:.1%}" in table
    assert "aten::convolution" in table or "mkldnn_convolution" in table


def test_too_few_steps_are_refused(shards: Shards, spec: ModelSpec, config: Config, tmp_path: Path):
    with pytest.raises(TrainingError, match=r"2 steps an epoch.*lower train\.batch_size"):
        profile_steps(trainer(shards, spec, config(batch_size=150)), tmp_path / "profile")
    assert not (tmp_path / "profile").exists()
