"""What the step `ensemble` does when it is on: find the members, combine them, export, measure."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.compression.ensemble import ENSEMBLE, METRICS, ONNX
from tasks.compression.export import export
from tasks.compression.runtime import run_logits
from tasks.data.shards import Shards, ShardSplit, open_shards
from tasks.errors import CompressionError, TrainingError
from tasks.files import write_directory, write_json
from tasks.params import Settings, load_settings
from tasks.runtime import open_session
from tasks.schema import Ensemble, Params
from tasks.training.best import BEST
from tasks.training.ensemble import (
    Member,
    cross_entropy,
    greedy_soup,
    vote,
    write_ensemble,
)
from tasks.training.inference import predict
from tasks.training.models import Classifier, ModelSpec, load_model

FOLDS = Path("data/cross_validation")
_PARITY = 1e-3  # largest difference of a probability between the file and its networks
log = logging.getLogger(__name__)


def run(params: Params) -> None:
    """Write data/ensemble and its metrics; raises what `candidates` does."""
    shards = open_shards()
    members = candidates(params, shards, load_settings())
    made, made_of = combine(params.ensemble, members, shards)
    model = vote(made, made[0].spec)
    write_directory(ENSEMBLE, lambda folder: _fill(folder, params, model, made, made_of, shards))
    metrics = _metrics(params.ensemble, model, made, members, made_of, shards)
    write_json(METRICS, metrics)
    log.info("%s of %s: %s", params.ensemble.kind, ", ".join(made_of), metrics)


def candidates(params: Params, shards: Shards, settings: Settings) -> list[Member]:
    """The best `ensemble.size` trials or folds, the lowest loss first.

    A trial's loss is that on the validation images, a fold's that on the fold. Raises
    TrainingError when there are not two.
    """
    if params.ensemble.of == "folds":
        places, way_out = sorted(FOLDS.glob("fold-*")), "set cross_validate.enabled to true"
        held_out = _folds(shards)
    else:
        places = _trials(params, shards, settings)
        way_out = "`dvc repro --force tune` trains them again, if tune keeps as many"
        held_out = {place.name: shards.split("validation") for place in places}
    if len(places) < 2:
        raise TrainingError(
            f"ensemble.of is {params.ensemble.of}, but the weights of {len(places)} are here; "
            f"{way_out}, or set ensemble.kind to none"
        )
    members = [_member(place, held_out[place.name], shards) for place in places]
    members.sort(key=lambda member: (member.loss, member.name))
    if len(members) < params.ensemble.size:
        log.warning("ensemble.size is %d, but there are %d", params.ensemble.size, len(members))
    return members[: params.ensemble.size]


def combine(
    config: Ensemble, members: Sequence[Member], shards: Shards
) -> tuple[list[Member], list[str]]:
    """The networks that vote (of a soup: it alone), and the names of whose weights are in them."""
    if config.kind == "vote":
        return list(members), [member.name for member in members]
    soup, made_of = greedy_soup(members, shards.split("train"), shards.split("validation"))
    if len(made_of) == 1:
        log.warning("no average of weights was better than %s: it is the soup", made_of[0])
    return [soup], made_of


def _trials(params: Params, shards: Shards, settings: Settings) -> list[Path]:
    """Where the weights of the trials that data/tune names are."""
    from tasks.training.tune import study_key  # Optuna: two seconds

    folder = settings.home / "studies" / study_key(params.tune, params.train, shards)
    with open(BEST.with_name("trials.csv"), encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["state"] == "COMPLETE"]
    places = [folder / f"trial-{row['trial']}" for row in rows]
    return [place for place in places if place.is_dir()]


def _folds(shards: Shards) -> dict[str, ShardSplit]:
    from tasks.data.folds import folds

    return {f"fold-{fold.number}": fold.held_out for fold in folds(shards)}


def _member(place: Path, held_out: ShardSplit, shards: Shards) -> Member:
    model, spec = load_model(place)
    if (spec.classes, spec.size) != (shards.classes, shards.contract.size):
        raise TrainingError(f"{place} was trained on other images than those in {shards.path}")
    return Member(place.name, model, spec, cross_entropy(model, spec, held_out))


def _fill(
    folder: Path,
    params: Params,
    model: Classifier,
    made: Sequence[Member],
    made_of: Sequence[str],
    shards: Shards,
) -> None:
    write_ensemble(folder, params.ensemble.kind, made, made_of)
    export(model, made[0].spec, folder / ONNX)
    _check_export(folder / ONNX, model, made[0].spec, shards.split("validation"))


def _check_export(path: Path, model: Classifier, spec: ModelSpec, split: ShardSplit) -> None:
    """Raise CompressionError when the file's probabilities are not those of the networks."""
    given = run_logits(open_session(path, 1), split.images, (1, 64))
    difference = np.abs(np.exp(given) - np.exp(predict(model, split.images, spec))).max()
    if not difference <= _PARITY:
        raise CompressionError(
            f"{path.name} differs from its networks by {difference:.3g} in probability (allowed: "
            f"{_PARITY:g}); set ensemble.kind to none"
        )


def _metrics(
    config: Ensemble,
    model: Classifier,
    made: Sequence[Member],
    members: Sequence[Member],
    made_of: Sequence[str],
    shards: Shards,
) -> dict[str, Any]:
    """Of trials the validation loss and accuracy; folds have learnt those images, so none."""
    facts: dict[str, Any] = {"members": len(made_of), "best_member_loss": members[0].loss}
    if config.of == "folds":
        return facts
    split = shards.split("validation")
    loss = cross_entropy(model, made[0].spec, split)
    predicted = predict(model, split.images, made[0].spec).argmax(1)
    if loss >= members[0].loss and len(made_of) > 1:
        log.warning("the ensemble's loss %.4f is not below its best member's", loss)
    return facts | {"loss": loss, "accuracy": float((predicted == split.labels).mean())}
