"""The Optuna study of one sweep: any number of workers, continued after a kill.

A worker that finds itself alone takes out the trial that a killed one left and repeats it under
its own number: the study goes the way an unbroken one would. Beside others, a trial whose worker
has gone is failed and tried again under a new number. Needs Optuna, which only the sweep needs.
"""

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import optuna
from optuna.exceptions import (
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from tasks.errors import ParamsError, ServiceError, TrainingError
from tasks.schema import Tune
from tasks.training.accounting import Trials, budget_used, paid
from tasks.training.ranking import rises
from tasks.training.search import Values, inside, pruner, sampler, suggest
from tasks.training.storage import Journal, Place

_RETRIES = 2  # of a trial whose worker was killed: it may be the trial that kills
_POLL_SECONDS = 1.0
log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Objective(Protocol):
    """What the trials of a study do."""

    def begin(self, study: optuna.Study) -> None:
        """Prepare the study; called by each worker, one at a time."""

    def __call__(self, trial: optuna.Trial) -> Sequence[float]:
        """Run one trial; gives a value for each of tune.objectives.

        May raise optuna.TrialPruned, and TrainingError or ParamsError, which fail the trial only.
        """

    def told(self, trials: Trials) -> None:
        """Called with all trials of the study after each of this worker's."""


def run_study(place: Place, config: Tune, current: Values, objective: Objective) -> Trials:
    """Run trials until the budget is used and no other worker's trial is left; gives them all.

    Args:
        place: the storage; the trials in it count towards the budget, also in time.
        config: the space, the budget, sampler, pruner and seed.
        current: today's value of every key of the space and of its conditions: the first trial
            has those that lie in the space.
        objective: what a trial does.

    Returns:
        The finished trials that the budget pays for, with those that were lost and tried again.

    Raises:
        ServiceError: the database cannot be used (any more).
    """
    try:
        with place.turn():
            study = _open(place, config)
            objective.begin(study)
        while (trial := _next(study, place, config, current)) is not None:
            _one_trial(study, trial, objective)
            objective.told(study.trials)
        return paid(study.trials, config)
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise ServiceError(
            f"the study's database cannot be used: {cause}; run this again when it can: the "
            "study goes on"
        ) from error


def _next(study: optuna.Study, place: Place, config: Tune, current: Values) -> optuna.Trial | None:
    """The next trial with its values; None when the sweep is at its end, also for others."""
    waiting = False
    while True:
        with place.turn():
            _give_up_lost(study, place)
            trials = study.trials
            if not trials:
                study.enqueue_trial(inside(current, config.space))
            retries = any(trial.state is TrialState.WAITING for trial in trials)
            if retries or not budget_used(trials, config):
                trial = study.ask()
                trial.set_user_attr("worker", place.worker)
                trial.set_user_attr("kernel_kills", _kernel_kills())
                suggest(trial, config.space, current)
                return trial
        if not any(trial.state is TrialState.RUNNING for trial in trials):
            return None
        if not waiting:
            log.info("the budget is used; waiting for the trials of other workers")
        waiting = True
        time.sleep(_POLL_SECONDS)


def _one_trial(study: optuna.Study, trial: optuna.Trial, objective: Objective) -> None:
    try:
        values, state = _outcome(trial, objective)
        study.tell(trial, values, state, skip_if_finished=True)
    except UpdateFinishedTrialError:
        log.warning(
            "trial %d was given up by another worker, which could not see this one; "
            "its result is dropped",
            trial.number,
        )


def _outcome(
    trial: optuna.Trial, objective: Objective
) -> tuple[Sequence[float] | None, TrialState]:
    try:
        return objective(trial), TrialState.COMPLETE
    except optuna.TrialPruned:
        return None, TrialState.PRUNED
    except (TrainingError, ParamsError) as error:
        log.warning("trial %d failed: %s", trial.number, error)
        trial.set_user_attr("error", str(error))
        return None, TrialState.FAIL


def _open(place: Place, config: Tune) -> optuna.Study:
    """The study; alone in a journal, without the trials at its end that were cut off."""
    study = _load(place.storage(), place, config)
    unfinished = [trial for trial in study.trials if not trial.state.is_finished()]
    if not (isinstance(place, Journal) and place.alone and _can_repeat(study, unfinished)):
        return study
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    log.info("continue the study after %d finished trials; repeat the last", len(finished))

    def fill(storage: BaseStorage) -> None:
        fresh = _load(storage, place, config)
        for name, value in study.user_attrs.items():
            fresh.set_user_attr(name, value)
        fresh.add_trials(finished)

    place.replace(fill)
    return _load(place.storage(), place, config)


def _can_repeat(study: optuna.Study, unfinished: Trials) -> bool:
    """They are the last, none is a retry, and it was not the kernel that killed their worker."""
    first = len(study.trials) - len(unfinished)
    kills = _kernel_kills()
    return bool(unfinished) and all(
        trial.number >= first
        and "retry_of" not in trial.user_attrs
        and trial.user_attrs.get("kernel_kills", kills) >= kills
        for trial in unfinished
    )


def _load(storage: BaseStorage, place: Place, config: Tune) -> optuna.Study:
    study = optuna.create_study(
        storage=storage,
        study_name=place.study,
        directions=[direction(objective) for objective in config.objectives],
        sampler=sampler(config),
        pruner=pruner(config),
        load_if_exists=True,
    )
    if study.metric_names is None:  # for optuna-dashboard, which would say "Objective 0"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(config.objectives))
    return study


def direction(objective: str) -> Literal["minimize", "maximize"]:
    """Optuna's direction of one of tune.objectives."""
    return "maximize" if rises(objective) else "minimize"


def _give_up_lost(study: optuna.Study, place: Place) -> None:
    """Fail the running trials whose worker has gone, and queue each again, in one's turn."""
    for trial in study.trials:
        if trial.state is not TrialState.RUNNING or _is_alive(trial, place):
            continue
        original = trial.user_attrs.get("first_try", trial.number)
        tries = [t for t in study.trials if t.user_attrs.get("first_try") == original]
        queued = any(t.user_attrs.get("retry_of") == trial.number for t in tries)
        again = len(tries) < _RETRIES
        if again and not queued:
            facts = {"retry_of": trial.number, "first_try": original}
            study.enqueue_trial(_drawn(trial), user_attrs=facts)
        log.warning(
            "trial %d: its worker was killed%s; %s",
            trial.number,
            " while the kernel ended a process for want of memory" if _starved(trial) else "",
            "it is tried again" if again else f"it was tried {_RETRIES + 1} times and has failed",
        )
        study.tell(trial.number, state=TrialState.FAIL)


def _is_alive(trial: FrozenTrial, place: Place) -> bool:
    # Without a worker's name: it was killed in its turn, between asking and saying so.
    worker = trial.user_attrs.get("worker")
    return worker is not None and place.alive(worker)


def _drawn(trial: FrozenTrial) -> dict[str, Any]:
    """The values of a lost trial, or, if it was killed before it had any, those it was to have."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _starved(trial: FrozenTrial) -> bool:
    kills = _kernel_kills()
    return bool(trial.user_attrs.get("kernel_kills", kills) < kills)


def _kernel_kills() -> int:
    """Processes that the kernel has ended for want of memory since it started (Linux)."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
