"""Real short trainings that fit well, too little and too much."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tasks.data.shards import Shards, ShardSplit
from tasks.schema import Augment, Train
from tasks.training.fitness import Fitness, judge
from tasks.training.loop import Epoch, FitResult, fit
from tasks.training.models import ModelSpec, build

Config = Callable[..., Train]
STILL = dict.fromkeys(Augment.model_fields) | {"preset": "none"}


def fitted(train: ShardSplit, shards: Shards, spec: ModelSpec, config: Train) -> Fitness:
    torch.manual_seed(0)
    spec = spec.model_copy(update={"width": config.width})
    model = build(spec)
    splits = train, shards.split("validation")
    result = fit(model, *splits, spec, config)
    return judge(model, splits, spec, config, result)


def part(split: ShardSplit, count: int, labels: np.ndarray | None = None) -> ShardSplit:
    names = ("images", "labels", "statistics", "hashes", "paths")
    small = replace(split, **{name: getattr(split, name)[:count] for name in names})
    return small if labels is None else replace(small, labels=labels[:count])


def test_a_good_fit_gets_no_warning(shards: Shards, spec: ModelSpec, config: Config):
    fitness = fitted(shards.split("train"), shards, spec, config(epochs=8, width=8))
    assert (fitness.state, fitness.warning) == ("good", None)
    assert fitness.train_accuracy > 0.95


@pytest.mark.parametrize(
    "values", [{"epochs": 1, "lr": 0.001}, {"epochs": 8, "label_smoothing": 0.95}]
)
def test_too_little_is_underfitting(
    shards: Shards, spec: ModelSpec, config: Config, values: dict[str, Any]
):
    fitness = fitted(shards.split("train"), shards, spec, config(**values))
    assert fitness.state == "underfitting"
    assert f"more train.epochs than {values['epochs']}" in str(fitness.warning)
    assert "a train.width above 4" in str(fitness.warning)


def test_a_few_images_learnt_by_heart_are_overfitting(
    shards: Shards, spec: ModelSpec, config: Config
):
    settings = config(epochs=30, patience=30, batch_size=8, augment=STILL, label_smoothing=0.0)
    fitness = fitted(part(shards.split("train"), 16), shards, spec, settings)
    assert fitness.state == "overfitting"
    assert fitness.train_accuracy == 1.0
    assert "accuracy 100.0% on training images" in str(fitness.warning)
    assert "more images, stronger augmentation" in str(fitness.warning)
    assert "train.label_smoothing 0.1" in str(fitness.warning)


def test_learning_noise_is_overfitting_by_its_curve(
    shards: Shards, spec: ModelSpec, config: Config
):
    """The best epoch is a good one: only the curve after it tells."""
    split = shards.split("train")
    noisy = split.labels.copy()
    rows = np.random.default_rng(0).random(len(noisy)) < 0.15
    noisy[rows] = (noisy[rows] + 1) % 4
    values = {"width": 16, "epochs": 40, "patience": 40, "augment": STILL, "label_smoothing": 0.0}
    settings = config(**values, schedule="constant", warmup=0.0, lr=0.05, weight_decay=0.0)
    fitness = fitted(part(split, 200, noisy), shards, spec, settings)
    assert fitness.state == "overfitting"


def test_a_loss_that_rises_while_every_held_out_image_is_right_is_no_overfitting(
    shards: Shards, spec: ModelSpec, config: Config
):
    settings = config(epochs=8, width=8)
    model = build(spec.model_copy(update={"width": 8}))
    splits = shards.split("train"), shards.split("validation")
    fit(model, *splits, spec, settings)
    best = Epoch(1, 0.2, 0.01, 1.0, 1.0, 0.1, 1.0, 1000.0, 0.0)
    turned = replace(best, epoch=2, train_loss=0.1, validation_loss=0.05)
    for accuracy, state in ((1.0, "good"), (0.7, "overfitting")):
        history = [best, replace(turned, validation_accuracy=accuracy)]
        fitness = judge(model, splits, spec, settings, FitResult(1, history))
        assert fitness.state == state
