"""What a worker says of the sweep after each trial: how many are done, the best, the time left."""

import logging

from optuna.trial import TrialState

from tasks.schema import Budget, Tune
from tasks.training.accounting import Trials, counting, seconds_used
from tasks.training.ranking import ranked

log = logging.getLogger(__name__)


def report(trials: Trials, tune: Tune, budget: Budget) -> None:
    """Log trials done, the best so far, and the minutes left."""
    done = [trial for trial in counting(trials) if trial.state.is_finished()]
    of = f" of {tune.trials}" if tune.trials is not None else ""
    log.info(
        "%d%s trials done (%s); best so far: %s; %s",
        len(done),
        of,
        _states(done),
        _best(ranked(trials, tune, budget), tune),
        _left(trials, done, tune),
    )


def _states(done: Trials) -> str:
    words = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    counts = {word: sum(trial.state is state for trial in done) for state, word in words.items()}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _best(order: Trials, tune: Tune) -> str:
    if not order:
        return "none yet"
    values = zip(tune.objectives, order[0].values, strict=True)
    return f"trial {order[0].number}, " + ", ".join(f"{name} {v:.4g}" for name, v in values)


def _left(trials: Trials, done: Trials, tune: Tune) -> str:
    """At the pace so far (of all workers together), or what the minutes leave."""
    used = seconds_used(trials)
    limits = []
    if tune.trials is not None and done:
        limits.append(used / len(done) * max(0, tune.trials - len(done)))
    if tune.minutes is not None:
        limits.append(60 * tune.minutes - used)
    left = max(0, round(min(limits))) if limits else 0
    return f"about {left // 60}:{left % 60:02d} left"
