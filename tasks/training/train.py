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

from tasks.data.shards import Shards, open_shards
from tasks.errors import TrainingError
from tasks.files import atomic_write, sha256_json, write_directory, write_json
from tasks.params import load_params, load_settings
from tasks.schema import Train
from tasks.step import run_step
from tasks.tracking import RunLog, open_run
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
from tasks.training.weights import weights_digest

MODEL, RUN = Path("data/model"), "run.json"
METRICS, CURVES = Path("data/metrics/train.json"), Path("data/plots/curves.csv")
log = logging.getLogger(__name__)


def train_model(
    config: Train, shards: Shards, run: RunLog, checkpoint: Path
) -> tuple[Classifier, ModelSpec, FitResult]:
    """Build the network for the shards and fit it, recording every epoch on `run`."""
    moments = channel_moments(shards.split("train").images)
    spec = spec_for(shards, config, moments)
    torch.manual_seed(config.seed)
    model = build(spec, config.weights)
    result = fit(
        model,
        shards.split("train"),
        shards.split("validation"),
        spec,
        config,
        checkpoint=checkpoint,
        on_epoch=lambda epoch: record_epoch(run, epoch),
    )
    return model, spec, result


def run_key(config: Train, shards: Shards) -> str:
    """The run's key in the tracker: other settings, starting weights or images, another run."""
    parts = [config.model_dump(mode="json"), shards.digest, weights_digest(config.weights)]
    return f"train-{sha256_json(parts)[:12]}"


def main() -> None:
    """The step `train`."""
    params, settings, shards = load_params(), load_settings(), open_shards()
    config = apply_best(params.train)
    key = run_key(config, shards)
    run = open_run(key, "train", settings=settings)
    run.params({"train": config.model_dump(mode="json")})
    record_origin(run, shards, params.ingest.origin)
    checkpoint = settings.home / "checkpoints" / key / "checkpoint.pt"
    try:
        model, spec, result = train_model(config, shards, run, checkpoint)
    except TrainingError as error:
        run.tags({"error": str(error)})
        run.finish("FAILED")
        raise
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
