"""Which trial is better: the order that best.yaml, the kept weights and the report go by."""

from optuna.trial import FrozenTrial, TrialState

from tasks.schema import Budget, Tune

Trials = list[FrozenTrial]
_HIGHER = ("accuracy", "macro_f1")  # of the objectives, those of which more is better


def ranked(trials: Trials, tune: Tune, budget: Budget) -> Trials:
    """The completed trials, best first.

    By the first objective (validation loss, accuracy or macro-F1), the earlier of equals.
    Where latency or size are objectives too, trials within budget.max_latency_ms and
    budget.max_size_mb come first; the others follow by how far they are over, so that the least far
    is taken when none is within.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: _order(trial, tune, budget))


def rises(objective: str) -> bool:
    """Whether more of one of tune.objectives is better."""
    return objective in _HIGHER


def excess(trial: FrozenTrial, tune: Tune, budget: Budget) -> float:
    """How far a trial is over the budget, as a share of the limit; 0 within, or without one."""
    limits = {"latency": budget.max_latency_ms, "size": budget.max_size_mb}
    over = [
        value / limit - 1
        for objective, value in zip(tune.objectives, trial.values, strict=True)
        if (limit := limits.get(objective)) is not None
    ]
    return max(0.0, *over) if over else 0.0


def _order(trial: FrozenTrial, tune: Tune, budget: Budget) -> tuple[float, ...]:
    first, *others = trial.values
    quality = -first if rises(tune.objectives[0]) else first
    return (excess(trial, tune, budget), quality, *others, trial.number)
