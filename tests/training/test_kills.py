"""Training under real SIGKILLs: it ends with the weights of an unbroken run, bit for bit."""

import hashlib
import io
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.data.shards import Shards, open_shards
from tasks.files import sha256
from tasks.schema import Train
from tasks.training import checkpoint as checkpoints
from tasks.training.loop import fit
from tasks.training.models import ModelSpec, build, save_model

Config = Callable[..., Train]
# Whatever has a state of its own is on: a killed run must not lose any of it.
ALL_ON: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 0.02,
    "schedule": "plateau",
    "warmup": 0.1,
    "accumulate": 2,
    "batch_size": 4,
    "ema": 0.95,
    "on_divergence": "step_back",
    "checkpoint_seconds": 1e-6,
    "patience": 99,
}

# The libraries are imported once, in a server that forks the processes to be killed.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tasks.training.loop", "tasks.training.augmentation"])


def run(folder: Path, shards: Path, spec: ModelSpec, config: Train, killed_at: int = 0) -> None:
    """Train and keep the weights in `folder`; SIGKILL itself inside checkpoint `killed_at`."""
    torch.set_num_threads(1)
    checkpoints._SHARE = 1.0  # as many checkpoints as there can be
    sync, calls = os.fsync, iter(range(1, 1_000_000))

    def cut(descriptor: int) -> None:
        if next(calls) == 2 * killed_at - 1:  # one for the file, one for its folder
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = cut
    splits = open_shards(shards)
    torch.manual_seed(0)
    model = build(spec)
    validation = splits.split("validation")
    file = folder / "checkpoint.pt"
    fit(model, splits.split("train"), validation, spec, config, checkpoint=file)
    folder.mkdir(exist_ok=True)
    save_model(folder / "model", model, spec)


Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path, shards: Shards, spec: ModelSpec) -> Start:
    """Starts a training of its own process in a folder."""

    def begin(name: str, config: Train, killed_at: int = 0) -> Any:
        arguments = (tmp_path / name, shards.path, spec, config, killed_at)
        process = processes.Process(target=run, args=arguments)
        process.start()
        return process

    return begin


def finished(process: Any) -> bool:
    """Whether the process came to its end by itself; else it was killed."""
    process.join(240)
    assert process.exitcode in (0, -signal.SIGKILL)
    return bool(process.exitcode == 0)


def weights(folder: Path) -> str:
    return sha256(folder / "model" / "model.safetensors")


def step_within_epoch(checkpoint: Path) -> int:
    """Where a whole checkpoint is (its digest is checked); 0 between epochs, and without one."""
    if not checkpoint.exists():
        return 0
    data = checkpoint.read_bytes()
    assert hashlib.sha256(data[32:]).digest() == data[:32]
    return int(torch.load(io.BytesIO(data[32:]))["epoch"]["steps"])


def test_kills_at_random_moments_change_nothing(start: Start, config: Config, tmp_path: Path):
    settings = config(**ALL_ON, epochs=3)
    started = time.monotonic()
    assert finished(start("whole", settings))
    longest = (time.monotonic() - started) / 3
    moments, kills, rounds, steps = random.Random(0), 0, 0, set()
    while kills < 6:
        rounds += 1
        folder = tmp_path / f"round {rounds}"
        process = start(folder.name, settings)
        while process.join(moments.uniform(0, longest)) is None and process.exitcode is None:
            process.kill()
            kills += not finished(process)
            steps.add(step_within_epoch(folder / "checkpoint.pt"))
            process = start(folder.name, settings)
        assert finished(process)
        assert weights(folder) == weights(tmp_path / "whole")
        assert {path.name for path in folder.iterdir()} == {"checkpoint.pt", "model"}
    assert len(steps - {0}) >= 2  # cut off within epochs, and taken up there


@pytest.mark.parametrize("killed_at", [1, 7])
def test_a_kill_while_the_checkpoint_is_written_leaves_the_one_before(
    start: Start, config: Config, tmp_path: Path, killed_at: int
):
    settings = config(**ALL_ON, epochs=2)
    assert finished(start("whole", settings))
    assert not finished(start("broken", settings, killed_at))
    broken = tmp_path / "broken"
    assert (step_within_epoch(broken / "checkpoint.pt") > 0) == (killed_at > 1)
    assert finished(start("broken", settings))
    assert weights(broken) == weights(tmp_path / "whole")
    assert {path.name for path in broken.iterdir()} == {"checkpoint.pt", "model"}
