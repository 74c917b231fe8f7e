"""The step `tune`: search the hyperparameters that tune.space declares.

Takes the shards, gives data/tune: best.yaml, study.json, trials.csv, study.html and plots. Every
trial is a recorded run of its own below the sweep's. Killed and run again, the study goes on; one
that is finished, by whatever workers, is only written out.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.data.shards import Shards, open_shards
from tasks.errors import TrainingError
from tasks.files import sha256_json, write_directory
from tasks.params import Settings, load_params, load_settings
from tasks.schema import Choices, Params, Range, Train, Tune
from tasks.step import run_step
from tasks.tracking import open_run
from tasks.training.accounting import Trials, error_of
from tasks.training.best import BEST, overridden
from tasks.training.ranking import excess, ranked
from tasks.training.recording import record_origin
from tasks.training.storage import place_of
from tasks.training.study import run_study
from tasks.training.study_report import PLOTS, write_outcome
from tasks.training.trial import Sweep, shown
from tasks.training.weights import weights_digest

log = logging.getLogger(__name__)


def sweep(params: Params, shards: Shards, settings: Settings, target: Path) -> None:
    """Run or go on with the study and write its outcome to the directory `target`.

    The study is found again by its search, base values and shards. Raises ParamsError before any
    work when the space holds a value that the train section refuses, and TrainingError when no
    trial succeeds.
    """
    check_space(params.tune, params.train)
    objective = sweep_of(params, shards, settings)
    open_sweep_run(objective, params)
    trials = run_trials(objective)
    run = open_run(objective.key, "tune", settings=settings)
    best = ranked(trials, params.tune, params.budget)[:1]
    if not best:
        run.finish("FAILED")
        raise TrainingError(
            f"all {len(trials)} trials of the sweep failed; the last: {error_of(trials[-1])}"
        )
    write_directory(target, lambda folder: write_outcome(folder, trials, objective))
    for path in sorted(target.iterdir()):
        if path.is_file():
            run.file(path)
    for path in sorted((target / PLOTS).iterdir()):
        run.file(path, PLOTS)
    facts = dict(zip(params.tune.objectives, best[0].values, strict=True))
    facts["accuracy"] = best[0].user_attrs["accuracy"]
    qualities = [name for name in ("loss", "accuracy", "macro_f1") if name in facts]
    run.metrics({f"best_validation_{name}": facts[name] for name in qualities})
    run.metrics({f"best_{name}": facts[name] for name in ("latency", "size") if name in facts})
    run.finish()
    _say(best[0], len(trials), objective)


def sweep_of(params: Params, shards: Shards, settings: Settings) -> Sweep:
    """What the trials of these params on these shards share."""
    key = study_key(params.tune, params.train, shards)
    return Sweep(key, params.tune, params.train, params.budget, shards, settings)


def open_sweep_run(objective: Sweep, params: Params) -> None:
    """Record the run that the trials are nested in, before the first of them."""
    run = open_run(objective.key, "tune", settings=objective.settings)
    sections = {"tune": params.tune, "train": params.train}
    run.params({name: section.model_dump(mode="json") for name, section in sections.items()})
    record_origin(run, objective.shards, params.ingest.origin)


def run_trials(objective: Sweep) -> Trials:
    """Join the study and work on it until its budget is used."""
    tune, train = objective.tune, objective.train
    values = _today(train)
    conditions = [key for bounds in tune.space.values() for key in bounds.when or {}]
    current = {key: _value(values, key) for key in [*tune.space, *conditions]}
    with closing(place_of(objective.key, objective.settings)) as place:
        return run_study(place, tune, current, objective)


def study_key(tune: Tune, train: Train, shards: Shards) -> str:
    """The sweep's run key. Without the budget: given more trials, the same study goes on."""
    searched = tune.model_dump(mode="json", exclude={"trials", "minutes", "keep"})
    parts = [searched, train.model_dump(mode="json"), shards.digest, weights_digest(train.weights)]
    return f"tune-{sha256_json(parts)[:12]}"


def check_space(tune: Tune, train: Train) -> None:
    """Raise ParamsError when an end of a range, or a choice, is not valid in the train section."""
    for key, bounds in tune.space.items():
        for condition in _settings(bounds):
            for value in _extremes(bounds):
                overridden(train, {**condition, key: value}, f"tune.space.{key}")


def main() -> None:
    """The step `tune`."""
    sweep(load_params(), open_shards(), load_settings(), BEST.parent)


def _say(best: Any, count: int, objective: Sweep) -> None:
    log.info("best of %d trials: number %d, %s", count, best.number, shown(best.params))
    over = excess(best, objective.tune, objective.budget)
    if over:
        log.warning(
            "no trial is within budget.max_latency_ms and budget.max_size_mb; the best is the "
            "least over, by %.0f %%",
            100 * over,
        )


def _settings(bounds: Range) -> Iterator[Mapping[str, Any]]:
    """Every combination of values that a range's condition names; {} without one."""
    conditions = bounds.when or {}
    for values in itertools.product(*conditions.values()):
        yield dict(zip(conditions, values, strict=True))


def _extremes(bounds: Range) -> list[Any]:
    return bounds.choices if isinstance(bounds, Choices) else [bounds.low, bounds.high]


def _today(train: Train) -> dict[str, Any]:
    """The train section's values; where augment is null, its preset's."""
    values = train.model_dump()
    return values | {"augment": {**values["augment"], **asdict(train.augment.recipe)}}


def _value(values: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        values = values[part]
    return values


if __name__ == "__main__":
    run_step(main)
