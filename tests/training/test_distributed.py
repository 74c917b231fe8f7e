"""Two processes on the CPU against one: the same curves, the same tests, the same kills."""

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

import numpy as np
import psutil
import pytest
import torch

from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.files import sha256
from tasks.params import read_yaml
from tasks.schema import Train
from tasks.tracking import read_events
from tasks.training import launch
from tasks.training.loop import fit
from tasks.training.models import ModelSpec, build, save_model

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STEP = [sys.executable, "-m", "tasks.training.train"]
Config = Callable[..., Train]
pytestmark = pytest.mark.timeout(600)  # every process of each training imports PyTorch


@pytest.fixture
def workspace(tmp_path: Path, shards: Shards, train_values: dict[str, Any]) -> Callable[..., Path]:
    """Makes a directory as `dvc repro` finds it before `train`; state goes to its home/."""

    def make(name: str, **train: Any) -> Path:
        folder = tmp_path / name
        for below in ("conf", "data/tune"):
            (folder / below).mkdir(parents=True)
        (folder / "data" / "shards").symlink_to(shards.path)
        values = read_yaml(ROOT / "conf" / "presets" / "quickstart.yaml")
        values["train"] = {**train_values, "devices": 2, **train}
        (folder / "conf" / "params.yaml").write_text(json.dumps(values), encoding="utf-8")
        best = {"trial": 0, "value": 0.1, "accuracy": 0.9}
        (folder / "data" / "tune" / "best.yaml").write_text(json.dumps(best))
        return folder

    return make


def start(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "VISIONLOOP_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def curves(folder: Path) -> np.ndarray:
    """Of each epoch: training loss, validation loss, validation accuracy."""
    rows = csv.DictReader((folder / "data/plots/curves.csv").read_text().splitlines())
    keys = ("train_loss", "validation_loss", "validation_accuracy")
    return np.array([[float(row[key]) for key in keys] for row in rows])


def once_saved(folder: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not list(folder.glob("home/checkpoints/*/checkpoint.pt")):
        time.sleep(0.005)


def test_two_processes_pass_the_tests_of_one():
    tests = "tests/training/test_loop.py"
    alone = f"{tests}::test_it_runs_on_a_bare_machine"  # starts a process of its own
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", tests, "--deselect", alone]
    done = subprocess.run(
        [*TORCHRUN, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


FREED = {"freeze": 3, "unfreeze_every": 1, "layer_decay": 0.8, "freeze_norm": False}


@pytest.mark.parametrize(
    ("command", "own"),
    [
        (STEP, {}),
        ([*TORCHRUN, *STEP[1:]], {}),
        (STEP, {"accumulate": 2, "finetune": FREED}),
    ],
    ids=["step", "torchrun", "accumulating, stage by stage"],
)
def test_the_curves_are_those_of_one_process(
    workspace: Callable[..., Path],
    shards: Shards,
    spec: ModelSpec,
    config: Config,
    tmp_path: Path,
    command: list[str],
    own: dict[str, Any],
):
    """Batches of 33 and 34 images: one rank has one more. Batch norms see the whole batch."""
    values = {"lr": 0.02, "epochs": 3, "batch_size": 33, **own}
    if "finetune" in own:  # needs weights to start from
        save_model(tmp_path / "weights", build(spec), spec)
        values["weights"] = str(tmp_path / "weights")
    folder = workspace("two", **values)
    code, errors = ended(start(folder, command))
    assert code == 0, errors
    torch.manual_seed(0)
    model = build(spec, values.get("weights"))
    one = fit(model, shards.split("train"), shards.split("validation"), spec, config(**values))
    wanted = [[e.train_loss, e.validation_loss, e.validation_accuracy] for e in one.history]
    np.testing.assert_allclose(curves(folder), wanted, rtol=1e-5)
    (run,) = (folder / "home" / "tracking").iterdir()
    events = read_events(run)
    epochs = [e["step"] for e in events if "validation_loss" in e.get("values", ())]
    assert epochs == [1, 2, 3]
    assert "training in 2 processes" in errors


def test_a_killed_training_of_two_ends_as_an_unbroken_one(workspace: Callable[..., Path]):
    """Killed as a whole, then one of its processes alone, then left to end."""
    unbroken, broken = (workspace(name, epochs=25, patience=25, lr=0.05) for name in ("a", "b"))
    assert ended(start(unbroken, STEP))[0] == 0
    process = start(broken, STEP)
    once_saved(broken, process)
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    assert not (broken / "data" / "model").exists()

    saved = next(broken.glob("home/checkpoints/*/checkpoint.pt"))
    before = saved.stat().st_mtime_ns
    process = start(broken, STEP)
    while process.poll() is None and saved.stat().st_mtime_ns == before:
        time.sleep(0.005)
    psutil.Process(process.pid).children()[-1].kill()
    code, errors = ended(process)
    assert code == 2
    (message,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "of 2 was ended by SIGKILL" in message
    assert "Traceback" not in errors
    assert not (broken / "data" / "model").exists()

    code, errors = ended(start(broken, STEP))
    assert code == 0, errors
    assert "went on from" in errors
    models = [folder / "data" / "model" / "model.safetensors" for folder in (unbroken, broken)]
    assert sha256(models[0]) == sha256(models[1])


@pytest.mark.parametrize("command", [STEP, [*TORCHRUN, *STEP[1:]]], ids=["step", "torchrun"])
def test_a_diverged_training_of_two_says_so_once(
    workspace: Callable[..., Path], command: list[str]
):
    folder = workspace("wild", lr=10.0, weight_decay=1.0, epochs=10)
    code, errors = ended(start(folder, command))
    assert code != 0
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, errors
    assert "diverged in epoch" in said[0]
    assert not (folder / "data" / "model").exists()
    (run,) = (folder / "home" / "tracking").iterdir()
    assert read_events(run)[-1]["status"] == "FAILED"


def test_more_processes_than_images_of_a_batch_are_refused(workspace: Callable[..., Path]):
    code, errors = ended(start(workspace("many", devices=3, batch_size=2), STEP))
    assert code == 2
    assert errors.count("error: train.batch_size 2 is less than an image for each of 3") == 1


def test_more_processes_than_gpus_are_refused(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch.processes(config(device="auto", devices="auto")) == 2
    assert launch.processes(config(device="cpu", devices="auto")) == 1
    with pytest.raises(TrainingError, match=r"train\.devices is 3.*2 GPUs"):
        launch.processes(config(device="auto", devices=3))


DRAWS = """
import torch
from tasks.schema import Train
from tasks.training import distributed, launch
import sys
with launch.session(Train.model_validate_json(sys.argv[1])):
    torch.manual_seed(5)
    with distributed.own_draws(0):
        first = torch.rand(4 + distributed.own_rows(3).start)[:4]
    with distributed.own_draws(1):
        second = torch.rand(4)
    shared = torch.rand(4)
    rows = distributed.gathered(torch.stack([first, second, shared])[None], 2)
    assert not torch.equal(rows[0, 0], rows[1, 0])  # dropout differs by rank
    assert not torch.equal(rows[0, 0], rows[0, 1])  # and by step
    assert torch.equal(rows[0, 2], rows[1, 2])  # augmentation does not
    torch.manual_seed(5)
    assert torch.equal(torch.rand(4), shared)  # and is what one process draws
"""


def test_ranks_draw_alike_for_images_and_apart_for_dropout(config: Config, tmp_path: Path):
    script = tmp_path / "draws.py"
    script.write_text(DRAWS)
    command = [*TORCHRUN, str(script), config().model_dump_json()]
    code, errors = ended(start(tmp_path, command))
    assert code == 0, errors


ALONE = """
import sys
import torch.distributed as dist
from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.step import run_process
from tasks.training import launch

def main():
    with launch.session(Train.model_validate_json(sys.argv[1])):
        if dist.get_rank() == 1:
            raise TrainingError("this process is out of memory")
        dist.barrier()  # the other one would wait here for ever

run_process(main)
"""


def test_an_error_in_one_process_ends_both_and_is_told_once(config: Config, tmp_path: Path):
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    code, errors = ended(start(tmp_path, [*TORCHRUN, str(script), config().model_dump_json()]))
    assert code != 0
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert said == ["error: this process is out of memory"]
    assert "barrier" not in errors
