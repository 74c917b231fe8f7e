"""The step `tune`: search the hyperparameters that tune.space declares.

Takes the shards, gives data/tune: best.yaml, trials.csv and study.html. Every trial is a
recorded run of its own below the sweep's. Killed and run again, the study goes on.
"""

import logging
from pathlib import Path
from typing import Any

from tasks.data.shards import Shards, open_shards
from tasks.errors import TrainingError
from tasks.files import sha256_json, write_directory
from tasks.params import Settings, load_params, load_settings
from tasks.schema import Choices, Range, Train, Tune
from tasks.step import run_step
from tasks.tracking import open_run
from tasks.training.best import BEST, overridden
from tasks.training.recording import record_origin
from tasks.training.study import run_study
from tasks.training.study_report import OUTCOME, best_of, write_outcome
from tasks.training.trial import Sweep
from tasks.training.weights import weights_digest

log = logging.getLogger(__name__)


def sweep(
    tune: Tune, train: Train, shards: Shards, settings: Settings, source: str, target: Path
) -> None:
    """Run or go on with the study and write its outcome to the directory `target`.

    The study is found again by its search, base values and shards; `source` says where the
    images came from. Raises ParamsError before any work when the space holds a value that the
    train section refuses, and TrainingError when no trial succeeds.
    """
    check_space(tune, train)
    key = study_key(tune, train, shards)
    run = open_run(key, "tune", settings=settings)
    run.params({"tune": tune.model_dump(mode="json"), "train": train.model_dump(mode="json")})
    record_origin(run, shards, source)
    current = {name: _value(train.model_dump(), name) for name in tune.space}
    journal = settings.home / "studies" / f"{key}.log"
    trials = run_study(journal, tune, current, Sweep(key, tune, train, shards, settings))
    best = best_of(trials)
    if best is None:
        run.finish("FAILED")
        raise TrainingError(
            f"all {len(trials)} trials of the sweep failed; the last: "
            f"{trials[-1].user_attrs.get('error')}"
        )
    write_directory(target, lambda directory: write_outcome(directory, trials, best))
    for name in OUTCOME:
        run.file(target / name)
    facts = {"loss": best.value or 0.0, "accuracy": best.user_attrs["accuracy"]}
    run.metrics({f"best_validation_{name}": value for name, value in facts.items()})
    run.finish()
    log.info("best of %d trials: number %d, %s", len(trials), best.number, best.params)


def study_key(tune: Tune, train: Train, shards: Shards) -> str:
    """The sweep's run key. Without the budget: given more trials, the same study goes on."""
    searched = tune.model_dump(mode="json", exclude={"trials", "minutes"})
    parts = [searched, train.model_dump(mode="json"), shards.digest, weights_digest(train.weights)]
    return f"tune-{sha256_json(parts)[:12]}"


def check_space(tune: Tune, train: Train) -> None:
    """Raise ParamsError when an end of a range, or a choice, is not valid in the train section."""
    for key, bounds in tune.space.items():
        for value in _extremes(bounds):
            overridden(train, {key: value}, f"tune.space.{key}")


def main() -> None:
    """The step `tune`."""
    params = load_params()
    shards = open_shards()
    sweep(params.tune, params.train, shards, load_settings(), params.ingest.origin, BEST.parent)


def _extremes(bounds: Range) -> list[Any]:
    return bounds.choices if isinstance(bounds, Choices) else [bounds.low, bounds.high]


def _value(values: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        values = values[part]
    return values


if __name__ == "__main__":
    run_step(main)
