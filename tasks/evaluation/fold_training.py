"""What the step `cross_validate` does when it is on: a training a fold, and its files."""

import csv
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.data.folds import Fold, folds
from tasks.data.shards import Shards, open_shards
from tasks.evaluation import label_suspects
from tasks.evaluation.cross_validate import METRICS, RESULT, TARGET
from tasks.evaluation.fold_scores import Interval, interval, scores_of_fold
from tasks.files import atomic_write, sha256_json, write_directory, write_json, write_text
from tasks.pages.charts import Series, chart
from tasks.pages.render import template
from tasks.params import Settings, load_settings
from tasks.schema import Params, Train
from tasks.tracking import NoLog, RunLog, open_run
from tasks.training import distributed, launch
from tasks.training.best import apply_best
from tasks.training.inference import predict
from tasks.training.loop import choose_device
from tasks.training.models import Classifier, ModelSpec, save_model
from tasks.training.recording import record_origin
from tasks.training.train import train_model
from tasks.training.weights import weights_digest

TABLE, PAGE, PROBABILITIES = "folds.csv", "folds.html", "out_of_fold.npz"
_DRAWN = ("accuracy", "macro_f1", "worst_recall")
Floats = npt.NDArray[np.float32]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """One fold's model, its probabilities (float32 n×C) on the held-out images, its scores."""

    fold: Fold
    model: Classifier
    spec: ModelSpec
    best_epoch: int
    probabilities: Floats
    scores: dict[str, float]


@dataclass(frozen=True)
class Validated:
    """All folds: the models, intervals by metric, and each metric over all images at once."""

    trained: list[Trained]
    intervals: dict[str, Interval]
    pooled: dict[str, float]


def cross_validate(
    config: Train, shards: Shards, confidence: float, settings: Settings, key: str, run: RunLog
) -> Validated:
    """Train on all folds but one, each in turn, and measure on that one.

    Every rank of a training in several processes takes part; the files are for one to write.
    Raises DataError when the shards hold no folds, TrainingError when a fold's training fails.
    """
    trained = [_train(fold, config, shards, settings, key) for fold in folds(shards)]
    names = list(trained[0].scores)
    found = {}
    for name in names:
        most = math.inf if name == "loss" else 1.0  # all others are shares
        found[name] = interval([one.scores[name] for one in trained], confidence, 0.0, most)
    probabilities = np.concatenate([one.probabilities for one in trained])
    labels = np.concatenate([one.fold.held_out.labels for one in trained])
    pooled = scores_of_fold(probabilities, labels, shards.classes)
    for name, value in found.items():
        ends = {"mean": value.mean, "low": value.low, "high": value.high}
        run.metrics({f"{name}_{end}": number for end, number in ends.items()})
    return Validated(trained, found, pooled)


def run(params: Params) -> None:
    """Train and measure fold by fold, in as many processes as `train.devices` says."""
    config = apply_best(params.train)
    if not launch.in_workers("tasks.evaluation.cross_validate", config):
        with launch.session(config):
            _run(params, config)


def _run(params: Params, config: Train) -> None:
    settings, shards = load_settings(), open_shards()
    parts = [config.deciding(), shards.digest, weights_digest(config.weights)]
    key = f"folds-{sha256_json(parts)[:12]}"
    run = _recorded(key, "cross-validation", None, settings)
    run.params({"train": config.model_dump(mode="json")})
    record_origin(run, shards, params.ingest.origin)
    result = cross_validate(config, shards, params.cross_validate.confidence, settings, key, run)
    if not distributed.is_writer():
        return
    suspects = write(result, shards, params.cross_validate.confidence)
    run.metrics({"label_suspects": suspects})
    for name in (TABLE, PAGE, PROBABILITIES, label_suspects.TABLE, label_suspects.PAGE):
        run.file(TARGET / name)
    run.finish()


def write(result: Validated, shards: Shards, confidence: float) -> int:
    """Write data/cross_validation in one rename, then the metrics; returns the label suspects."""
    held_out = [one.fold.held_out for one in result.trained]
    suspects = label_suspects.find_suspects(
        [one.probabilities for one in result.trained], held_out, shards.classes
    )

    def fill(directory: Path) -> None:
        for one in result.trained:
            save_model(directory / f"fold-{one.fold.number}", one.model, one.spec)
        label_suspects.write_suspects(directory, suspects, held_out, result.pooled["accuracy"])
        _write_probabilities(directory / PROBABILITIES, result, shards)
        _write_table(directory / TABLE, result.trained)
        _write_page(directory / PAGE, result, confidence)
        rows = [{"fold": one.fold.number, **one.scores} for one in result.trained]
        write_json(directory / RESULT, {"folds": _defined(rows)})

    write_directory(TARGET, fill)
    values: dict[str, Any] = {
        "folds": len(result.trained),
        "confidence": confidence,
        "label_suspects": len(suspects),
    }
    for name, found in result.intervals.items():
        ends = {"mean": found.mean, "low": found.low, "high": found.high}
        values[name] = ends | {"pooled": result.pooled[name]}
    write_json(METRICS, _defined(values))
    return len(suspects)


def _train(fold: Fold, config: Train, shards: Shards, settings: Settings, key: str) -> Trained:
    run = _recorded(f"{key}-fold-{fold.number}", f"fold {fold.number}", key, settings)
    log.info("fold %d: %d images are held out", fold.number, len(fold.held_out))
    checkpoint = settings.home / "checkpoints" / f"{key}-fold-{fold.number}" / "checkpoint.pt"
    splits = fold.train, fold.held_out
    model, spec, result = train_model(config, shards, run, checkpoint, splits)
    model.to(choose_device(config.device))
    logits = predict(model, fold.held_out.images, spec).astype(np.float64)
    model.cpu()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = np.asarray(powers / powers.sum(1, keepdims=True), np.float32)
    scores = scores_of_fold(probabilities, fold.held_out.labels, shards.classes)
    run.metrics({"best_epoch": result.best_epoch, **_finite(scores)})
    run.finish()
    return Trained(fold, model, spec, result.best_epoch, probabilities, scores)


def _recorded(key: str, name: str, parent: str | None, settings: Settings) -> RunLog:
    if not distributed.is_writer():
        return NoLog()
    return open_run(key, name, parent, settings, restart=True)


def _write_probabilities(path: Path, result: Validated, shards: Shards) -> None:
    """One row an image outside the test split: what the model that never saw it says."""
    held_out = [one.fold.held_out for one in result.trained]
    with atomic_write(path) as stream:
        np.savez(
            stream,
            probabilities=np.concatenate([one.probabilities for one in result.trained]),
            labels=np.concatenate([split.labels for split in held_out]),
            hashes=np.concatenate([split.hashes for split in held_out]),
            paths=np.array([path for split in held_out for path in split.paths]),
            fold=np.concatenate(
                [np.full(len(one.fold.rows), one.fold.number) for one in result.trained]
            ),
            classes=np.array(shards.classes),
        )


def _write_table(path: Path, trained: list[Trained]) -> None:
    with atomic_write(path, "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["fold", "images", "best_epoch", *trained[0].scores])
        for one in trained:
            row = [one.fold.number, len(one.fold.held_out), one.best_epoch]
            table.writerow([*row, *one.scores.values()])


def _write_page(path: Path, result: Validated, confidence: float) -> None:
    numbers = [one.fold.number for one in result.trained]
    series = [
        Series(name.replace("_", " "), numbers, [one.scores[name] for one in result.trained],
               f"s{place + 1}", line=False)
        for place, name in enumerate(_DRAWN)
    ]  # fmt: skip
    page = template("folds.html.j2", Path(__file__).parent).render(
        intervals=result.intervals,
        pooled=result.pooled,
        trained=result.trained,
        level=f"{100 * confidence:g} %",
        chart=chart("Folds", "fold", "share", series, shares=True),
        images=sum(len(one.fold.held_out) for one in result.trained),
    )
    write_text(path, page)


def _finite(scores: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if np.isfinite(value)}


def _defined(values: Any) -> Any:
    """The same for JSON: what is not defined (a class that a fold lacks) is null."""
    if isinstance(values, dict):
        return {key: _defined(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_defined(value) for value in values]
    return None if isinstance(values, float) and not np.isfinite(values) else values
