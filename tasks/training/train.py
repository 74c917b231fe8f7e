"""The step `train`: train the declared network with the sweep's best values.

Takes the shards and data/tune/best.yaml, gives data/model (weights, spec and run key),
data/metrics/train.json and data/plots/curves.csv. Killed and run again, it goes on from the
last epoch; trained already, it only writes its files again.
"""

import csv
import logging
from dataclasses import asdict, fields
from pathlib import Path

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
from tasks.training.loop import Epoch, FitResult, fit
from tasks.training.models import (
    Classifier,
    ModelSpec,
    build,
    channel_moments,
    save_model,
    spec_for,
)
from tasks.training.recording import record_epoch, record_origin

MODEL, RUN = Path("data/model"), "run.json"
METRICS, CURVES = Path("data/metrics/train.json"), Path("data/plots/curves.csv")
log = logging.getLogger(__name__)


def train_model(
    config: Train,
    shards: Shards,
    run: RunLog,
    checkpoint: Path,
    splits: tuple[ShardSplit, ShardSplit] | None = None,
) -> tuple[Classifier, ModelSpec, FitResult]:
    """Build the network for the shards and fit it, recording every epoch on `run`.

    `splits` are what to train on and what to validate on: the shards' own unless given.
    """
    train, validation = splits or (shards.split("train"), shards.split("validation"))
    moments = channel_moments(train.images)
    spec = spec_for(shards, config, moments)
    torch.manual_seed(config.seed)
    model = build(spec, config.pretrained)
    result = fit(
        model,
        train,
        validation,
        spec,
        config,
        checkpoint=checkpoint,
        on_epoch=lambda epoch: record_epoch(run, epoch),
    )
    return model, spec, result


def main() -> None:
    """The step `train`, in as many processes as `train.devices` says."""
    params = load_params()
    config = apply_best(params.train)
    if not launch.in_workers("tasks.training.train", config):
        with launch.session(config):
            _train(params, config)


def _train(params: Params, config: Train) -> None:
    settings, shards = load_settings(), open_shards()
    key = f"train-{sha256_json([config.model_dump(mode='json'), shards.digest])[:12]}"
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
        _write(model, spec, result, key)
        _record(run, result)


def _write(model: Classifier, spec: ModelSpec, result: FitResult, key: str) -> None:
    def fill(directory: Path) -> None:
        save_model(directory, model, spec)
        write_json(directory / RUN, {"run_key": key})

    write_directory(MODEL, fill)
    write_json(METRICS, _summary(model, result))
    with atomic_write(CURVES, "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(field.name for field in fields(Epoch))
        table.writerows(asdict(epoch).values() for epoch in result.history)


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


def _record(run: RunLog, result: FitResult) -> None:
    best = result.best
    run.metrics(
        {
            "best_epoch": result.best_epoch,
            "best_validation_loss": best.validation_loss,
            "best_validation_accuracy": best.validation_accuracy,
        }
    )
    run.file(CURVES, "plots")
    run.finish()
    log.info(
        "best epoch %d of %d: validation loss %.4f, accuracy %.2f %%",
        result.best_epoch,
        len(result.history),
        best.validation_loss,
        100 * best.validation_accuracy,
    )


if __name__ == "__main__":
    run_step(main)
