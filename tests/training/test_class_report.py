"""The per-class report against scikit-learn, and what it says of the remedy."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from tasks.data.shards import Shards
from tasks.schema import Imbalance
from tasks.training.class_report import class_report, summary, write_class_report

CLASSES = ("0", "1", "2", "3")
PLAIN = Imbalance(
    sampling="none", class_weights="none", beta=0.99, focal_gamma=0.0, logit_adjustment=0.0
)


@pytest.fixture
def predicted(shards: Shards) -> np.ndarray:
    """The labels, a third of them replaced, and class 3 never given."""
    generator = np.random.default_rng(0)
    labels = np.array(shards.split("validation").labels)
    wrong = generator.random(len(labels)) < 1 / 3
    labels[wrong] = generator.integers(0, 3, wrong.sum())
    labels[labels == 3] = 2
    return labels


def test_scores_are_scikit_learns(shards: Shards, predicted: np.ndarray, tmp_path: Path) -> None:
    train, validation = shards.split("train"), shards.split("validation")
    rows = class_report(CLASSES, PLAIN, train, validation, predicted)
    precision, recall, f1, support = precision_recall_fscore_support(
        validation.labels, predicted, zero_division=0
    )
    assert [row.precision for row in rows] == pytest.approx(precision)
    assert [row.recall for row in rows] == pytest.approx(recall)
    assert [row.f1 for row in rows] == pytest.approx(f1)
    assert [row.validation_images for row in rows] == support.tolist()
    assert rows[3].precision == 0
    assert [row.train_images for row in rows] == np.bincount(train.labels).tolist()
    assert summary(rows) == {
        "validation_macro_f1": pytest.approx(f1.mean()),
        "validation_worst_recall": 0.0,
    }
    write_class_report(tmp_path / "classes.csv", rows)
    with open(tmp_path / "classes.csv") as stream:
        read = list(csv.DictReader(stream))
    assert [row["label"] for row in read] == list(CLASSES)
    assert [float(row["f1"]) for row in read] == [row.f1 for row in rows]


def test_it_shows_what_the_remedy_does(shards: Shards, predicted: np.ndarray) -> None:
    validation = shards.split("validation")
    whole = shards.split("train")
    kept = np.concatenate([np.flatnonzero(whole.labels == 0), np.flatnonzero(whole.labels)[:30]])
    train = replace(whole, images=whole.images[kept], labels=whole.labels[kept])
    changes = {
        "oversample": {"sampling": "oversample"},
        "inverse class weights": {"class_weights": "inverse"},
        "focal loss (gamma 2)": {"focal_gamma": 2.0},
        "logit adjustment (tau 1)": {"logit_adjustment": 1.0},
        "none": {},
    }
    counts = np.bincount(train.labels)
    for remedy, change in changes.items():
        rows = class_report(CLASSES, PLAIN.model_copy(update=change), train, validation, predicted)
        assert {row.remedy for row in rows} == {remedy}
        shown = [row.shown_per_epoch for row in rows]
        expected = [counts.max()] * 4 if remedy == "oversample" else counts.tolist()
        assert shown == pytest.approx(expected)
        weights = np.array([row.loss_weight for row in rows])
        is_weighted = remedy == "inverse class weights"
        assert weights * (counts if is_weighted else 1) == pytest.approx(
            np.full(4, (weights[0] * counts[0]) if is_weighted else 1), rel=1e-2
        )


def test_a_class_that_validation_lacks_does_not_count(shards: Shards) -> None:
    train, validation = shards.split("train"), shards.split("validation")
    labels = np.where(validation.labels == 3, 0, validation.labels)
    rows = class_report(CLASSES, PLAIN, train, replace(validation, labels=labels), labels)
    assert rows[3].validation_images == 0
    assert summary(rows) == {"validation_macro_f1": 1.0, "validation_worst_recall": 1.0}
