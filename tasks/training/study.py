"""The Optuna study of one sweep: kept in a journal file, continued after a kill.

A continued study goes the way an unbroken one would: a trial that was cut off is taken out
and repeated under its own number, and every trial's sampler is seeded by that number. Needs
Optuna, which only the sweep needs.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tasks.errors import TrainingError
from tasks.schema import Choices, FloatRange, Range, Tune

_RANDOM_TRIALS = 5  # before the sampler has enough to model
_UNPRUNED_TRIALS = 3  # before a median says anything
log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

Objective = Callable[[optuna.Trial], float]


def distributions(space: dict[str, Range]) -> dict[str, BaseDistribution]:
    """Optuna's distributions for tune.space, in the order of their names."""
    return {key: _distribution(space[key]) for key in sorted(space)}


def run_study(
    file: Path, config: Tune, current: dict[str, Any], objective: Objective
) -> list[optuna.trial.FrozenTrial]:
    """Run trials until the budget is used; gives the finished trials, at most config.trials.

    Args:
        file: the journal; its trials count towards the budget, also in time.
        config: the space, the budget, the pruner and the seed.
        current: values of the space's keys today: the first trial, where the space has them.
        objective: trains one trial and gives its validation loss (lower is better). It may
            raise optuna.TrialPruned, and TrainingError, which fails the trial only.
    """
    with _alone(file):
        study = _open(file, config)
        space = distributions(config.space)
        while not _budget_used(done := study.trials, config):
            if not done:
                study.enqueue_trial(_inside(current, space))
            study.sampler = _sampler(config.seed + len(done))
            _one_trial(study, study.ask(space), objective)
        return study.trials[: config.trials]


def _one_trial(study: optuna.Study, trial: optuna.Trial, objective: Objective) -> None:
    try:
        value = objective(trial)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except TrainingError as error:
        log.warning("trial %d failed: %s", trial.number, error)
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)


def _budget_used(done: list[optuna.trial.FrozenTrial], config: Tune) -> bool:
    seconds = sum(trial.duration.total_seconds() for trial in done if trial.duration)
    return bool(done) and (len(done) >= config.trials or seconds >= 60 * config.minutes)


def _open(file: Path, config: Tune) -> optuna.Study:
    """The study with its finished trials only, numbered without a gap."""
    _mend_journal(file)
    study = _load(file, config)
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    if len(finished) < len(study.trials):
        log.info("continue the study after %d finished trials; repeat the last", len(finished))
        fresh = file.with_suffix(".rebuilt")
        fresh.unlink(missing_ok=True)
        _load(fresh, config).add_trials(finished)
        os.replace(fresh, file)
        study = _load(file, config)
    return study


def _load(file: Path, config: Tune) -> optuna.Study:
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(file))),
        study_name=file.stem,
        direction="minimize",
        pruner=_pruner(config),
        load_if_exists=True,
    )


def _mend_journal(file: Path) -> None:
    """Remove what a killed process leaves: Optuna's lock, and half a line at the end."""
    for name in (file.name, file.with_suffix(".rebuilt").name):
        for lock in file.parent.glob(f"{name}.lock*"):
            lock.unlink(missing_ok=True)
    if file.exists():
        whole = file.read_bytes().rfind(b"\n") + 1
        os.truncate(file, whole)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One process a study: another waits (an orphan of a killed run ends within a second)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.with_suffix(".turn"), "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for the other process that runs this study")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS)


def _pruner(config: Tune) -> optuna.pruners.BasePruner:
    if config.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=config.epochs)
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(_UNPRUNED_TRIALS, n_warmup_steps=config.epochs // 3)
    return optuna.pruners.NopPruner()


def _distribution(bounds: Range) -> BaseDistribution:
    if isinstance(bounds, Choices):
        return CategoricalDistribution(bounds.choices)
    if isinstance(bounds, FloatRange):
        return FloatDistribution(bounds.low, bounds.high, log=bounds.log)
    return IntDistribution(bounds.low, bounds.high, log=bounds.log)


def _inside(values: dict[str, Any], space: dict[str, BaseDistribution]) -> dict[str, Any]:
    """The values that the space contains; the sampler draws the others."""
    return {key: value for key, value in values.items() if _contains(space[key], value)}


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:
        return False
