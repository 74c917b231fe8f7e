"""The epoch that is kept: of the lowest validation loss, or of the best macro-F1."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from tasks.data.shards import Shards
from tasks.schema import Augment, Train
from tasks.training.keeping import better, macro_f1
from tasks.training.loop import Epoch, fit, predict
from tasks.training.models import ModelSpec, build

Config = Callable[..., Train]
STILL = {**dict.fromkeys(Augment.model_fields), "preset": "none"}
LABELS = np.array([0, 0, 0, 1, 1, 3, 3, 3, 3, 3])
EPOCH = Epoch(1, 0.5, 0.6, 0.8, 0.7, 0.1, 1.0, 1000.0, 0.0)


@pytest.mark.parametrize(
    "predicted",
    [LABELS, np.zeros(10, np.int64), (LABELS + 1) % 4, np.array([0, 2, 4, 1, 0, 3, 3, 0, 3, 2])],
    ids=["right", "one class", "wrong", "some"],
)
def test_macro_f1_is_the_mean_over_the_classes_that_are_there(predicted: np.ndarray):
    expected = f1_score(LABELS, predicted, labels=[0, 1, 3], average="macro", zero_division=0)
    assert macro_f1(predicted, LABELS) == pytest.approx(expected)


def test_loss_is_asked_or_macro_f1_and_of_equals_the_lower_loss(config: Config):
    surer = replace(EPOCH, epoch=2, validation_loss=0.9, validation_macro_f1=0.75)
    assert not better(surer, EPOCH, config(keep_by="loss"))
    assert better(surer, EPOCH, config(keep_by="macro_f1"))
    equal = replace(surer, validation_macro_f1=EPOCH.validation_macro_f1)
    assert not better(equal, EPOCH, config(keep_by="macro_f1"))
    assert better(replace(equal, validation_loss=0.5), EPOCH, config(keep_by="macro_f1"))
    assert not better(EPOCH, EPOCH, config(keep_by="macro_f1"))


def test_training_ends_with_the_weights_of_the_best_macro_f1(
    shards: Shards, spec: ModelSpec, config: Config
):
    """With a third of the labels wrong the two are of different epochs, far apart."""
    train, validation = shards.split("train"), shards.split("validation")
    rows = np.random.default_rng(1).random(len(train)) < 0.3
    noisy = replace(train, labels=np.where(rows, (train.labels + 1) % 4, train.labels))
    values = {"epochs": 6, "patience": 6, "width": 8, "schedule": "constant", "warmup": 0.0}
    values |= {"label_smoothing": 0.0, "augment": STILL}
    kept = {}
    for keep_by in ("loss", "macro_f1"):
        torch.manual_seed(0)
        model = build(spec.model_copy(update={"width": 8}))
        result = fit(model, noisy, validation, spec, config(**values, keep_by=keep_by))
        f1 = macro_f1(predict(model, validation.images, spec).argmax(1), validation.labels)
        assert f1 == result.best.validation_macro_f1
        kept[keep_by] = result
    by_loss, by_f1 = kept["loss"], kept["macro_f1"]
    assert by_loss.best.validation_loss == min(e.validation_loss for e in by_loss.history)
    assert by_f1.best.validation_macro_f1 == max(e.validation_macro_f1 for e in by_f1.history)
    assert by_f1.best_epoch != by_loss.best_epoch
