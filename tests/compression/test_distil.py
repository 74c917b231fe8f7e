"""Students on real digits: which architecture, by which method, taken up after a kill."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.compression.distil import distil
from tasks.compression.teacher import Teacher, changes
from tasks.data.shards import Shards, ShardSplit
from tasks.schema import PRESETS, Augment, Params, Recipe
from tasks.training.augmentation import augmentation
from tasks.training.loop import fit
from tasks.training.models import Classifier, ModelSpec, build, normalise

Network = tuple[Classifier, ModelSpec]
Splits = tuple[ShardSplit, ShardSplit]
STILL = dict.fromkeys(Augment.model_fields) | {"preset": "none"}
KillAt = Callable[[int, Callable[[], object]], None]


@pytest.fixture
def splits(digit_shards: Shards) -> Splits:
    return few(digit_shards.split("train"), 160), few(digit_shards.split("validation"), 60)


def few(split: ShardSplit, count: int) -> ShardSplit:
    return ShardSplit(
        images=split.images[:count],
        labels=split.labels[:count],
        statistics=split.statistics[:count],
        hashes=split.hashes[:count],
        paths=split.paths[:count],
    )


def values(conf: Params, train: dict[str, Any] | None = None, **settings: Any) -> tuple[Any, Any]:
    """The sections train and distil, short and small but for what is given."""
    brief = {"widths": [4], "depth": 1, "epochs": 2} | settings
    section = conf.train.model_dump() | {"patience": 20} | (train or {})
    return (
        type(conf.train).model_validate(section),
        type(conf.compress.distil).model_validate(conf.compress.distil.model_dump() | brief),
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_student_is_the_network_that_is_asked_for(
    network: Network, splits: Splits, conf: Params, tmp_path: Path
) -> None:
    train, settings = values(conf, architecture="mobilenet_v3_small", epochs=1)
    student, spec = distil(*network, splits, train, settings, settings.widths[0], tmp_path / "a.pt")
    assert spec.architecture == "mobilenet_v3_small"
    assert student(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    train, settings = values(conf, widths=[8], depth=2, epochs=1)
    student, spec = distil(*network, splits, train, settings, settings.widths[0], tmp_path / "b.pt")
    assert (spec.width, spec.depth, len(student.backbone.blocks)) == (8, 2, 6)


@pytest.mark.parametrize("method", ["decoupled", "features"])
def test_a_killed_distillation_goes_on_and_ends_with_the_same_weights(
    network: Network, splits: Splits, conf: Params, tmp_path: Path, killed_at: KillAt, method: str
) -> None:
    train, settings = values(conf, method=method, epochs=3)

    def run(name: str) -> Classifier:
        return distil(*network, splits, train, settings, settings.widths[0], tmp_path / name)[0]

    unbroken = run("unbroken.pt")
    killed_at(2, lambda: run("killed.pt"))
    assert same(run("killed.pt"), unbroken)


def test_features_bring_the_embedding_near_the_teachers(
    network: Network, splits: Splits, conf: Params, tmp_path: Path
) -> None:
    """The student is as wide as the teacher: no adapter stands between."""
    inputs = normalise(torch.from_numpy(np.array(splits[1].images)), network[1])
    far: dict[str, Tensor] = {}
    for method in ("soft_targets", "features"):
        train, settings = values(conf, method=method, beta=10.0, widths=[16], epochs=6)
        student, _ = distil(
            *network, splits, train, settings, settings.widths[0], tmp_path / f"{method}.pt"
        )
        with torch.no_grad():
            wanted = network[0].embed(inputs)
            far[method] = (student.embed(inputs) - wanted).square().sum() / wanted.square().sum()
    assert far["features"] < 0.7 * far["soft_targets"]


def test_the_labels_part_is_the_loss_that_training_uses(
    network: Network, splits: Splits, conf: Params, tmp_path: Path
) -> None:
    """Without the teacher's part distillation is training: class weights, smoothing and all."""
    rare = conf.train.imbalance.model_copy(update={"class_weights": "inverse", "focal_gamma": 1.0})
    train, settings = values(conf, {"imbalance": rare.model_dump(), "epochs": 2}, alpha=0.0)
    student, spec = distil(*network, splits, train, settings, settings.widths[0], tmp_path / "c.pt")
    torch.manual_seed(train.seed)
    alone = build(spec)
    fit(alone, *splits, spec, train)
    assert same(student, alone)


def test_a_patient_student_has_more_epochs_and_more_patience(
    network: Network, splits: Splits, conf: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, settings = values(conf, {"patience": 1}, epochs=2, patient=3)
    with caplog.at_level(logging.INFO):
        distil(*network, splits, train, settings, settings.widths[0], tmp_path / "d.pt")
    assert "epoch 3/6" in caplog.text


class Counted(nn.Module):
    """A teacher's backbone that counts the images it is shown."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.inner(x)


@pytest.mark.parametrize(("preset", "times"), [("none", 1), ("light", 3)])
def test_the_teacher_is_asked_once_for_an_image_that_never_changes(
    network: Network,
    splits: Splits,
    conf: Params,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    preset: str,
    times: int,
) -> None:
    model, spec = network
    counted = Classifier(Counted(model.backbone), model.head)
    train, settings = values(conf, {"augment": STILL | {"preset": preset}}, epochs=3)
    with caplog.at_level(logging.INFO):
        distil(counted, spec, splits, train, settings, settings.widths[0], tmp_path / "e.pt")
    asked = counted.backbone.seen - (1 if preset == "none" else 0)  # one to see how much it says
    assert asked == times * len(splits[0])
    assert ("train.augment changes the images (flip" in caplog.text) == (preset == "light")


def test_a_teacher_without_weight_is_not_asked(
    network: Network, splits: Splits, conf: Params, tmp_path: Path
) -> None:
    model, spec = network
    for method, heard in (("soft_targets", False), ("features", True)):
        counted = Classifier(Counted(model.backbone), model.head)
        train, settings = values(conf, method=method, alpha=0.0, epochs=1)
        path = tmp_path / f"{method}.pt"
        distil(counted, spec, splits, train, settings, settings.widths[0], path)
        assert (counted.backbone.seen > 0) == heard


def test_remembered_answers_are_those_of_the_images(network: Network, splits: Splits) -> None:
    model, spec = network
    images = np.array(splits[0].images[:40])
    images[7] = images[3]  # an image that is there twice
    twice = replace(few(splits[0], 40), images=images)
    asked, remembering = Teacher(model), Teacher(model)
    remembering.remember(twice, spec, Recipe(), torch.device("cpu"))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).numpy()
    inputs = augmentation(spec, Recipe())(torch.from_numpy(twice.images[order]))
    found, wanted = remembering(inputs), asked(inputs)
    assert not torch.equal(found.logits[:1], remembering(inputs[1:2]).logits)
    assert torch.allclose(found.logits, wanted.logits, atol=1e-4)
    assert torch.allclose(found.embedding, wanted.embedding, atol=1e-4)


def test_what_moves_an_image_is_named(network: Network, splits: Splits) -> None:
    spec, train = network[1], splits[0]
    assert changes(train, spec, Recipe(policy_operations=3, mix_probability=0.5)) is None
    assert "padding_crop" in str(changes(train, spec, PRESETS["light"]))
    assert "mixup" in str(changes(train, spec, Recipe(mixup=0.2)))
    assert "prepare.margin" in str(changes(train, spec.model_copy(update={"size": 6}), Recipe()))
