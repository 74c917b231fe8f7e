"""A pipeline directory up to `compress`: real digits, a trained network, real files."""

import copy
import json
import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from building import context_of
from ruamel.yaml import YAML

from tasks.bundle import InputContract
from tasks.compression.context import Context
from tasks.data.shards import SPLITS, Shards, open_shards, write_index
from tasks.params import load_params
from tasks.pixels import fit, statistics
from tasks.schema import Params
from tasks.training.loop import fit as train
from tasks.training.models import (
    Classifier,
    ModelSpec,
    build,
    channel_moments,
    load_model,
    save_model,
    spec_for,
)
from tasks.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
SIZE = 8
COUNTS = {"train": 600, "validation": 200, "test": 100}


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, digit_images: np.ndarray, digit_labels: np.ndarray
) -> Path:
    """conf, data/shards, data/tune and data/model as the steps before `compress` leave them."""
    root = tmp_path_factory.mktemp("trained")
    _write_params(root)
    _write_shards(root / "data/shards", digit_images, digit_labels)
    (root / "data/tune").mkdir()
    (root / "data/tune/best.yaml").write_text("lr: 0.1\ntrial: 0\nvalue: 0.1\naccuracy: 0.9\n")
    shards = open_shards(root / "data/shards")
    config = load_params(root / "conf/params.yaml").train.model_copy(update={"epochs": 10})
    splits = shards.split("train"), shards.split("validation")
    spec = spec_for(shards, config, channel_moments(splits[0].images))
    torch.manual_seed(0)
    model = build(spec)
    train(model, *splits, spec, config)
    save_model(root / "data/model", model, spec)
    (root / "data/model/run.json").write_text('{"run_key": "train-0123456789ab"}')
    return root


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in, as the current directory, with a state directory of its own."""
    root = tmp_path / "project"
    shutil.copytree(trained, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path / "home"))
    return root


@pytest.fixture(scope="session")
def digit_shards(trained: Path) -> Shards:
    return open_shards(trained / "data/shards")


@pytest.fixture(scope="session")
def network(trained: Path) -> tuple[Classifier, ModelSpec]:
    """The trained network and its spec."""
    return load_model(trained / "data/model")


@pytest.fixture(scope="session")
def hostile(network: tuple[Classifier, ModelSpec]) -> tuple[Classifier, ModelSpec]:
    """A network whose first channel is huge, and read by nothing: eight bits hold little else."""
    model, spec = copy.deepcopy(network[0]).eval(), network[1]
    blocks = model.backbone.blocks
    with torch.no_grad():
        model.backbone.stem[1].bias[0] += 2000
        for layer in (blocks[0].conv1, blocks[1].conv1, blocks[1].shortcut[-2]):
            layer.weight[:, 0] = 0
    return model, spec


@pytest.fixture(scope="session")
def coarse(network: tuple[Classifier, ModelSpec]) -> tuple[Classifier, ModelSpec]:
    """A network with large weights on a channel that is always zero: int8 is coarse in the rest."""
    model, spec = copy.deepcopy(network[0]).eval(), network[1]
    blocks = model.backbone.blocks
    with torch.no_grad():
        for norm in (model.backbone.stem[1], blocks[0].norm2):
            norm.weight[0], norm.bias[0] = 0, -1
        for layer in (blocks[0].conv1, blocks[1].conv1):
            layer.weight[:, 0, 1, 1] = 120 * layer.weight[:, 1:].abs().flatten(1).amax(1)
        blocks[1].shortcut[-2].weight[:, 0] = 0
    return model, spec


@pytest.fixture(scope="session")
def conf(trained: Path) -> Params:
    """The values of its conf/params.yaml."""
    return load_params(trained / "conf/params.yaml")


@pytest.fixture
def context(
    network: tuple[Classifier, ModelSpec], trained: Path, digit_shards: Shards, tmp_path: Path
) -> Context:
    """What the step hands to the search, of the trained network."""
    return context_of(network, trained, digit_shards, tmp_path)


class Killed(BaseException):
    """Ends a training as SIGKILL would: nothing of the product catches it."""


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Runs something that trains until its n-th checkpoint after an epoch is written."""

    def run(saves: int, train: Callable[[], object]) -> None:
        left = [saves]
        save = Trainer.save

        def save_and_die(self: Trainer) -> None:
            self._save()
            left[0] -= 1
            if not left[0]:
                raise Killed

        monkeypatch.setattr(Trainer, "save", save_and_die)
        with pytest.raises(Killed):
            train()
        monkeypatch.setattr(Trainer, "save", save)

    return run


def _write_params(root: Path) -> None:
    yaml = YAML()
    values: Any = yaml.load((ROOT / "conf/presets/quickstart.yaml").read_text())
    values["prepare"]["size"] = SIZE
    values["train"] |= {"lr": 0.1, "batch_size": 32, "device": "cpu"}
    values["compress"]["distil"] |= {"epochs": 6}
    values["compress"]["prune"] |= {"epochs": 3}
    values["compress"]["quantize"]["calibration_images"] = 64
    values["compress"]["latency_runs"] = 20
    values["compress"] |= {"openvino": False, "gpu": False}
    values["budget"]["max_accuracy_drop"] = 0.5
    values["budget"]["min_agreement"] = 0.0
    (root / "conf").mkdir()
    with open(root / "conf/params.yaml", "w") as stream:
        yaml.dump(values, stream)


def _write_shards(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    path.mkdir(parents=True)
    start = 0
    for name in SPLITS:
        rows = range(start, start + COUNTS[name])
        start += COUNTS[name]
        small = np.stack([fit(images[i], SIZE, "stretch") for i in rows])
        hashes = [blake2b(image.tobytes(), digest_size=16).hexdigest() for image in small]
        np.save(path / f"{name}_images.npy", small)
        np.save(path / f"{name}_labels.npy", labels[list(rows)].astype(np.int64))
        np.save(path / f"{name}_statistics.npy", np.stack([statistics(i) for i in small]))
        np.save(path / f"{name}_hashes.npy", np.array(hashes, "S32"))
        (path / f"{name}_paths.json").write_text(json.dumps([f"{i}.png" for i in rows]))
    contract = InputContract(size=SIZE, resize="stretch", max_pixels=10_000)
    write_index(path, [str(digit) for digit in range(10)], contract)
