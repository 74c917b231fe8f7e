"""The step `train`: train the declared network with the sweep's best values.

Takes the shards and data/tune/best.yaml, gives data/model (weights, spec and run key),
data/metrics/train.json and train_cost.json and, in data/plots, preview.png, curves.csv and
validation_classes.csv.
Killed and run again, it goes on from the last checkpoint; trained already, it only writes its
files again.
"""

import csv
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from tasks.data.shards import Shards, ShardSplit, open_shards
from tasks.errors import TrainingError
from tasks.files import atomic_write, sha256_json, write_directory, write_json
from tasks.params import load_params, load_settings
from tasks.schema import Params, Train
from tasks.step import run_step
from tasks.tracking import NoLog, RunLog, open_run
from tasks.training import distributed, launch
from tasks.training.best import apply_best
from tasks.training.class_report import ClassRow, class_report, summary, write_class_report
from tasks.training.energy import training_cost
from tasks.training.fitness import judge
from tasks.training.loop import Epoch, FitResult, choose_device, fit, predict
from tasks.training.models import (
    Classifier,
    ModelSpec,
    build,
    channel_moments,
    save_model,
    spec_for,
)
from tasks.training.preview import write_preview
from tasks.training.recording import record_epoch, record_fitness, record_origin, record_step
from tasks.training.weights import weights_digest

MODEL, RUN = Path("data/model"), "run.json"
METRICS, CURVES = Path("data/metrics/train.json"), Path("data/plots/curves.csv")
COST = Path("data/metrics/train_cost.json")  # apart: it is another at every training
PREVIEW, CLASSES = Path("data/plots/preview.png"), Path("data/plots/validation_classes.csv")
log = logging.getLogger(__name__)


def train_model(
    config: Train,
    shards: Shards,
    run: RunLog,
    checkpoint: Path,
    splits: tuple[ShardSplit, ShardSplit] | None = None,
) -> tuple[Classifier, ModelSpec, FitResult]:
    """Build the network for the shards and fit it, recording every epoch on `run`.

    `splits` are what to train on and what to validate on: the shards' own unless given. Of those,
    `run` gets a picture of what the network will see first (data/plots/preview.png).
    """
    train, validation = splits or (shards.split("train"), shards.split("validation"))
    moments = channel_moments(train.images)
    spec = spec_for(shards, config, moments)
    if splits is None and distributed.is_writer():
        write_preview(PREVIEW, train, spec, config)
        run.file(PREVIEW, "plots")
    torch.manual_seed(config.seed)
    model = build(spec, config.weights)
    result = fit(
        model,
        train,
        validation,
        spec,
        config,
        checkpoint=checkpoint,
        on_epoch=lambda epoch: record_epoch(run, epoch),
        on_step=lambda health: record_step(run, health),
    )
    return model, spec, result


def run_key(config: Train, shards: Shards) -> str:
    """The run's key in the tracker: other settings, starting weights or images, another run."""
    parts = [config.deciding(), shards.digest, weights_digest(config.weights)]
    return f"train-{sha256_json(parts)[:12]}"


def main() -> None:
    """The step `train`, in as many processes as `train.devices` says."""
    params = load_params()
    config = apply_best(params.train)
    if not launch.in_workers("tasks.training.train", config):
        with launch.session(config):
            _train(params, config)


def _train(params: Params, config: Train) -> None:
    settings, shards = load_settings(), open_shards()
    key = run_key(config, shards)
    writer = distributed.is_writer()
    run: RunLog = open_run(key, "train", settings=settings) if writer else NoLog()
    run.params({"train": config.model_dump(mode="json")})
    record_origin(run, shards, params.ingest.origin)
    checkpoint = settings.home / "checkpoints" / key / "checkpoint.pt"
    try:
        model, spec, result = train_model(config, shards, run, checkpoint)
    except TrainingError as error:
        run.tags({"error": str(error)})
        run.finish("FAILED")
        raise
    if writer:
        splits = shards.split("train"), shards.split("validation")
        record_fitness(run, judge(model, splits, spec, config, result))
        rows = _class_rows(model, spec, shards, config)
        cost = training_cost(result.history, choose_device(config.device))
        _write(model, spec, result, key, rows, cost)
        _record(run, result, rows)


def _class_rows(
    model: Classifier, spec: ModelSpec, shards: Shards, config: Train
) -> list[ClassRow]:
    """How well the model of the best epoch knows each class."""
    train, validation = shards.split("train"), shards.split("validation")
    predicted = predict(model, validation.images, spec).argmax(1)
    return class_report(spec.classes, config.imbalance, train, validation, predicted)


def _write(
    model: Classifier,
    spec: ModelSpec,
    result: FitResult,
    key: str,
    rows: list[ClassRow],
    cost: dict[str, Any],
) -> None:
    def fill(directory: Path) -> None:
        save_model(directory, model, spec)
        write_json(directory / RUN, {"run_key": key})

    write_directory(MODEL, fill)
    write_json(METRICS, _summary(model, result) | summary(rows))
    write_json(COST, cost)
    write_class_report(CLASSES, rows)
    with atomic_write(CURVES, "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        names = [field.name for field in fields(Epoch) if field.compare]  # not how fast it was
        table.writerow(names)
        table.writerows([getattr(epoch, name) for name in names] for epoch in result.history)


def _summary(model: Classifier, result: FitResult) -> dict[str, float]:
    best = result.best
    return {
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "train_loss": best.train_loss,
        "validation_loss": best.validation_loss,
        "validation_accuracy": best.validation_accuracy,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _record(run: RunLog, result: FitResult, rows: list[ClassRow]) -> None:
    best = result.best
    run.metrics(
        {
            "best_epoch": result.best_epoch,
            "best_validation_loss": best.validation_loss,
            "best_validation_accuracy": best.validation_accuracy,
        }
        | {f"best_{name}": value for name, value in summary(rows).items()}
    )
    if result.step_backs:
        run.tags({"step_backs": "\n".join(result.step_backs)})
    run.file(CURVES, "plots")
    run.file(CLASSES, "plots")
    run.finish()
    log.info(
        "best epoch %d of %d: validation loss %.4f, accuracy %.2f %%",
        result.best_epoch,
        len(result.history),
        best.validation_loss,
        100 * best.validation_accuracy,
    )
    worst = min(rows, key=lambda row: row.recall)
    log.info(
        "imbalance remedy: %s; worst class on validation: %r, recall %.3f, of %d training images",
        worst.remedy,
        worst.label,
        worst.recall,
        worst.train_images,
    )


if __name__ == "__main__":
    run_step(main)
