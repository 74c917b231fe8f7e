"""What the trials of a study come to against the sweep's budget, those included that were lost.

A trial is lost when its worker was killed beside others: it has failed, says no error, and is
tried again under a new number, which then counts in its place.
"""

from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState

from tasks.schema import Tune

Trials = list[FrozenTrial]


def paid(trials: Trials, config: Tune) -> Trials:
    """The trials that the budget pays for, and before them those that were tried again."""
    counted = counting(trials)[: config.trials]
    last = counted[-1].number if counted else -1
    return [trial for trial in trials if trial.number <= last and trial.state.is_finished()]


def counting(trials: Trials) -> Trials:
    """The trials but those that were lost and tried again."""
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    return [trial for trial in trials if trial.number not in retried]


def seconds_used(trials: Trials) -> float:
    """Seconds in which a trial ran; of several at once they count once."""
    now = datetime.now()
    spans = sorted(
        (trial.datetime_start, trial.datetime_complete or now)
        for trial in counting(trials)
        if trial.datetime_start and not _lost(trial)
    )
    total, reached = timedelta(), datetime.min
    for start, end in spans:
        total += max(timedelta(), end - max(start, reached))
        reached = max(reached, end)
    return total.total_seconds()


def error_of(trial: FrozenTrial) -> str:
    """Why a trial failed; "" when it did not."""
    return str(trial.user_attrs.get("error", "its worker was killed" if _lost(trial) else ""))


def budget_used(trials: Trials, config: Tune) -> bool:
    """Whether no new trial may start; the first always may."""
    if not trials:
        return False
    by_trials = config.trials is not None and len(counting(trials)) >= config.trials
    return by_trials or (config.minutes is not None and seconds_used(trials) >= 60 * config.minutes)


def _lost(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and "error" not in trial.user_attrs
