"""Real digits as shards on disk, and a small, fast train section."""

import json
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.bundle import InputContract
from tasks.data.shards import SPLITS, Shards, open_shards, write_index
from tasks.params import read_yaml
from tasks.pixels import fit, statistics
from tasks.schema import Augment, Train
from tasks.training import distributed, launch
from tasks.training.models import ModelSpec, channel_moments, spec_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def _processes() -> Iterator[None]:
    """Under torchrun (see test_distributed.py) the tests train together with the other ranks."""
    with launch.session(Train.model_validate(TRAIN)):
        yield


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """One folder for all ranks: they train one model, and one of them writes."""
    return distributed.on_writer(lambda: tmp_path)


COUNTS = {"train": 300, "validation": 120, "test": 120}
SIZE = 8


@pytest.fixture(scope="session")
def shards(
    tmp_path_factory: pytest.TempPathFactory, digit_images: np.ndarray, digit_labels: np.ndarray
) -> Shards:
    """540 digits of four classes, 8×8 pixels."""
    path = tmp_path_factory.mktemp("shards")
    few = np.flatnonzero(digit_labels < 4)
    start = 0
    for name in SPLITS:
        chosen = few[start : start + COUNTS[name]]
        start += COUNTS[name]
        images = np.stack([fit(digit_images[i], SIZE, "stretch") for i in chosen])
        hashes = [blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
        np.save(path / f"{name}_images.npy", images)
        np.save(path / f"{name}_labels.npy", digit_labels[chosen].astype(np.int64))
        np.save(path / f"{name}_statistics.npy", np.stack([statistics(i) for i in images]))
        np.save(path / f"{name}_hashes.npy", np.array(hashes, "S32"))
        (path / f"{name}_paths.json").write_text(json.dumps([f"{i}.png" for i in chosen]))
    contract = InputContract(size=SIZE, resize="stretch", max_pixels=10_000)
    write_index(path, ["0", "1", "2", "3"], contract)
    return open_shards(path)


TRAIN: dict[str, Any] = {
    "architecture": "resnet_small",
    "width": 4,
    "depth": 1,
    "activation": "default",
    "dropout": None,
    "stochastic_depth": None,
    "weights": None,
    "finetune": {"freeze": 0, "unfreeze_every": 0, "layer_decay": 1.0, "freeze_norm": False},
    "epochs": 5,
    "batch_size": 32,
    "accumulate": 1,
    "optimizer": "sgd",
    "lr": 0.1,
    "schedule": "one_cycle",
    "warmup": 0.3,
    "milestones": [0.5, 0.75],
    "decay": 0.1,
    "plateau_patience": 2,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "label_smoothing": 0.05,
    "grad_clip": 1.0,
    "ema": 0.0,
    "precision": "fp32",
    "compile": False,
    "patience": 5,
    "keep_by": "loss",
    "seed": 0,
    "device": "cpu",
    "on_divergence": "stop",
    "log_steps": 4,
    "checkpoint_seconds": 60.0,
    "devices": 1,
    "augment": {
        **dict.fromkeys(Augment.model_fields),
        "preset": "none",
        "shift": 0.05,
        "rotate": 5.0,
        "scale": 0.05,
        "brightness": 0.1,
        "contrast": 0.1,
    },
    "imbalance": {
        "sampling": "none",
        "class_weights": "none",
        "beta": 0.999,
        "focal_gamma": 0.0,
        "logit_adjustment": 0.0,
    },
}

TUNE = {
    "trials": 4,
    "minutes": 60.0,
    "epochs": 3,
    "seed": 0,
    "sampler": "tpe",
    "pruner": "hyperband",
    "objectives": ["loss"],
    "keep": 2,
    "space": {
        "lr": {"type": "float", "low": 0.02, "high": 0.3, "log": True},
        "augment.rotate": {"type": "float", "low": 0.0, "high": 15.0},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adamw"]},
    },
}


@pytest.fixture
def train_values() -> dict[str, Any]:
    """The train section as plain values."""
    return dict(TRAIN)


@pytest.fixture
def config() -> Callable[..., Train]:
    """The train section, with some values replaced."""

    def make(**values: Any) -> Train:
        return Train.model_validate({**TRAIN, **values})

    return make


@pytest.fixture(scope="session")
def spec(shards: Shards) -> ModelSpec:
    moments = channel_moments(shards.split("train").images)
    return spec_for(shards, Train.model_validate(TRAIN), moments)


@pytest.fixture
def workspace(tmp_path: Path, shards: Shards, train_values: dict[str, Any]) -> Callable[..., Path]:
    """Makes a directory as `dvc repro` finds it before `tune`; state goes to its home/."""

    def make(name: str, tune: dict[str, Any] | None = None, **train: Any) -> Path:
        folder = tmp_path / name
        (folder / "conf").mkdir(parents=True)
        (folder / "data").mkdir()
        (folder / "data" / "shards").symlink_to(shards.path)
        values = read_yaml(ROOT / "conf" / "presets" / "quickstart.yaml")
        values["tune"] = {**TUNE, **(tune or {})}
        values["train"] = {**train_values, **train}
        (folder / "conf" / "params.yaml").write_text(json.dumps(values), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a workspace the current one of this process."""

    def change(folder: Path) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("VISIONLOOP_HOME", str(folder / "home"))

    return change
