import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.training.distributed import is_writer
from tasks.training.loop import Epoch, FitResult, fit, predict
from tasks.training.models import Classifier, ModelSpec, build
from tasks.training.optimisation import make_optimizer

Config = Callable[..., Train]


def train(
    shards: Shards, spec: ModelSpec, config: Train, **options: object
) -> tuple[Classifier, FitResult]:
    torch.manual_seed(0)
    model = build(spec)
    splits = shards.split("train"), shards.split("validation")
    return model, fit(model, *splits, spec, config, **options)


def weights(model: torch.nn.Module) -> dict[str, bytes]:
    state = model.state_dict().items()
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in state}


def test_it_learns_and_ends_with_the_best_weights(shards: Shards, spec: ModelSpec, config: Config):
    model, result = train(shards, spec, config(epochs=12, width=8))
    held_out = shards.split("test")
    accuracy = (predict(model, held_out.images, spec).argmax(1) == held_out.labels).mean()
    assert accuracy > 0.9
    validation = shards.split("validation")
    logits = torch.from_numpy(predict(model, validation.images, spec))
    loss = F.cross_entropy(logits.double(), torch.from_numpy(validation.labels))
    assert float(loss) == result.best.validation_loss
    assert result.best.validation_loss == min(e.validation_loss for e in result.history)
    assert not model.training


def test_the_epoch_is_chosen_by_the_classes_as_the_remedy_weights_them(
    shards: Shards, spec: ModelSpec, config: Config
):
    whole, validation = shards.split("train"), shards.split("validation")
    rows = np.flatnonzero((whole.labels < 2) | (np.arange(len(whole)) % 8 == 0))
    few = replace(
        whole, images=whole.images[rows], labels=whole.labels[rows], hashes=whole.hashes[rows]
    )
    settings = config(epochs=4, width=8)
    adjusted = settings.imbalance.model_copy(update={"logit_adjustment": 1.0})
    settings = settings.model_copy(update={"imbalance": adjusted})
    torch.manual_seed(0)
    model = build(spec)
    result = fit(model, few, validation, spec, settings)
    logits = torch.from_numpy(predict(model, validation.images, spec)).double()
    weights = torch.from_numpy(1 / np.bincount(few.labels))
    loss = F.cross_entropy(logits, torch.from_numpy(validation.labels), weights)
    assert result.best.validation_loss == pytest.approx(float(loss))
    assert result.best.validation_loss == min(e.validation_loss for e in result.history)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_seed_gives_the_same_weights(
    shards: Shards, spec: ModelSpec, config: Config, optimizer: str
):
    settings = config(epochs=2, optimizer=optimizer, lr=0.01)
    first, _ = train(shards, spec, settings)
    torch.rand(7)  # the global random state must not matter
    second, _ = train(shards, spec, settings)
    assert weights(first) == weights(second)
    third, _ = train(shards, spec, settings.model_copy(update={"seed": 1}))
    assert weights(first) != weights(third)


def test_the_callers_random_state_is_left_alone(shards: Shards, spec: ModelSpec, config: Config):
    torch.manual_seed(3)
    model = build(spec)
    before = torch.get_rng_state()
    fit(model, shards.split("train"), shards.split("validation"), spec, config(epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_cut_off_ends_as_an_unbroken_one(
    shards: Shards, spec: ModelSpec, config: Config, tmp_path: Path, optimizer: str
):
    settings = config(optimizer=optimizer, lr=0.02)
    unbroken, whole = train(shards, spec, settings)
    checkpoint = tmp_path / "checkpoint.pt"

    def cut(epoch: Epoch) -> None:
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(shards, spec, settings, checkpoint=checkpoint, on_epoch=cut)
    seen: list[Epoch] = []
    resumed, rest = train(shards, spec, settings, checkpoint=checkpoint, on_epoch=seen.append)
    assert weights(resumed) == weights(unbroken)
    assert rest == whole
    assert seen == whole.history
    again, done = train(shards, spec, settings, checkpoint=checkpoint)
    assert weights(again) == weights(unbroken)
    assert done == whole


def test_a_checkpoint_of_other_settings_or_images_is_not_taken_up(
    shards: Shards, spec: ModelSpec, config: Config, tmp_path: Path
):
    checkpoint = tmp_path / "checkpoint.pt"
    train(shards, spec, config(epochs=1), checkpoint=checkpoint)
    other, _ = train(shards, spec, config(epochs=2), checkpoint=checkpoint)
    fresh, _ = train(shards, spec, config(epochs=2))
    assert weights(other) == weights(fresh)


@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_checkpoint_is_not_taken_up(
    shards: Shards,
    spec: ModelSpec,
    config: Config,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    keep: float,
):
    checkpoint = tmp_path / "checkpoint.pt"
    fresh, _ = train(shards, spec, config(epochs=1), checkpoint=checkpoint)
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(keep * len(data))])
    model, _ = train(shards, spec, config(epochs=1), checkpoint=checkpoint)
    assert weights(model) == weights(fresh)
    assert "is damaged" in caplog.text or not is_writer()


def test_a_full_disk_keeps_the_last_good_checkpoint(
    shards: Shards,
    spec: ModelSpec,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    checkpoint = tmp_path / "checkpoints" / "checkpoint.pt"
    settings = config(epochs=3)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill_disk(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            monkeypatch.setattr("tasks.files.os.fsync", full)

    with pytest.raises(OSError, match=r"No space left.*checkpoint\.pt") as raised:
        train(shards, spec, settings, checkpoint=checkpoint, on_epoch=fill_disk)
    assert raised.value.errno == errno.ENOSPC
    assert [file.name for file in checkpoint.parent.iterdir()] == ["checkpoint.pt"]
    monkeypatch.undo()
    resumed, result = train(shards, spec, settings, checkpoint=checkpoint)
    unbroken, _ = train(shards, spec, settings)
    assert len(result.history) == 3
    assert weights(resumed) == weights(unbroken)


def test_it_stops_when_validation_no_longer_improves(
    shards: Shards, spec: ModelSpec, config: Config
):
    _, result = train(shards, spec, config(epochs=200, patience=2, lr=0.3))
    assert len(result.history) < 200
    assert len(result.history) == result.best_epoch + 2


def test_divergence_names_the_epoch_the_rate_and_a_way_out(
    shards: Shards, spec: ModelSpec, config: Config
):
    def exploding(logits: torch.Tensor, labels: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels) * 1e30

    settings = config(lr=8.0, grad_clip=1e9)
    with pytest.raises(TrainingError) as raised:
        train(shards, spec, settings, loss=exploding)
    assert "epoch 1" in str(raised.value)
    assert "train.lr 8" in str(raised.value)
    assert "train.lr 0.8" in str(raised.value)


def test_a_loss_of_ones_own_sees_what_the_network_sees(
    shards: Shards, spec: ModelSpec, config: Config
):
    shapes = set()

    def loss(logits: torch.Tensor, labels: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        shapes.add((logits.shape[1:], inputs.shape[1:], inputs.dtype, len(labels) == len(inputs)))
        return F.cross_entropy(logits, labels)

    train(shards, spec, config(epochs=1), loss=loss)
    assert shapes == {((4,), (3, 8, 8), torch.float32, True)}


def test_norms_and_biases_are_not_decayed(spec: ModelSpec, config: Config):
    model = build(spec)
    decayed, spared = make_optimizer(model, config()).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.0005, 0)
    norms = {
        id(p)
        for m in model.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
        for p in m.parameters()
    }
    assert norms < {id(p) for p in spared["params"]}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_a_missing_device_is_named(
    shards: Shards, spec: ModelSpec, config: Config, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"train\.device is cuda"):
        train(shards, spec, config(device="cuda"))


def test_predict_does_not_depend_on_the_number_of_images(shards: Shards, spec: ModelSpec):
    model = build(spec)
    images = np.concatenate([shards.split("train").images, shards.split("test").images])
    logits = predict(model, images, spec)
    assert logits.shape == (420, 4)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(predict(model, images[300:], spec), logits[300:], atol=1e-5)
    assert model.training


BARE = """
import sys

for name in ("mlflow", "prefect", "pandas", "sklearn", "optuna", "safetensors", "ruamel",
             "pydantic_settings", "dvc", "onnx", "sqlalchemy", "plotly", "rich"):
    sys.modules[name] = None  # as if it were not installed
from types import SimpleNamespace
import numpy as np
from tasks.schema import Train
from tasks.training.distributed import is_writer
from tasks.training.loop import fit, predict
from tasks.training.models import ModelSpec, build
config = Train.model_validate_json(sys.argv[1])
spec = ModelSpec.model_validate_json(sys.argv[2])

class Split(SimpleNamespace):
    def __len__(self): return len(self.labels)

images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
split = Split(
    images=images, labels=np.arange(40) % 4, hashes=np.arange(40), weights=None, paths=[]
)
model = build(spec)
fit(model, split, split, spec, config)
assert predict(model, images, spec).shape == (40, 4)
"""


def test_it_runs_on_a_bare_machine(spec: ModelSpec, config: Config):
    """torch, torchvision, numpy and pydantic are all that training needs."""
    arguments = [config(epochs=1).model_dump_json(), spec.model_dump_json()]
    command = [sys.executable, "-c", BARE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
