"""A Gaussian process that also learns from trials that were stopped early or that failed.

Optuna's learns from complete trials alone: it would propose again and again what fails or is
stopped, since nothing tells it what came of that.
"""

from statistics import median
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

Space = dict[str, BaseDistribution]


class GaussianSampler(GPSampler):
    """Optuna's, over all trials whose outcome says something."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        """The keys that every known trial has."""
        return super().infer_relative_search_space(known(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Space
    ) -> dict[str, Any]:
        """Where the expected improvement is largest; {} while there are too few trials."""
        seen = known(study)
        return super().sample_relative(
            seen, seen.get_trials(deepcopy=False)[trial.number], search_space
        )


def known(study: optuna.Study) -> optuna.Study:
    """A copy in memory, under the same numbers, where what is known of a trial completes it.

    A trial that was stopped early has its last value and what complete trials gained from that
    epoch on (the median); one that failed the worst value of the others. Lost trials, which say
    no error and are tried again, stay as they are.
    """
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    copy = optuna.create_study(directions=study.directions)
    for trial in trials:
        values = _values(trial, done, study.directions) if done else None
        copy.add_trial(trial if values is None else _complete(trial, values))
    return copy


def _values(
    trial: FrozenTrial, done: list[FrozenTrial], directions: list[StudyDirection]
) -> list[float] | None:
    if trial.state is TrialState.PRUNED and trial.intermediate_values:
        return [_extended(trial, done)]
    if trial.state is TrialState.FAIL and "error" in trial.user_attrs:
        columns = zip(*(other.values for other in done), strict=True)
        return [
            max(column) if direction is StudyDirection.MINIMIZE else min(column)
            for column, direction in zip(columns, directions, strict=True)
        ]
    return None


def _extended(trial: FrozenTrial, done: list[FrozenTrial]) -> float:
    step, value = max(trial.intermediate_values.items())
    gains = [
        other.values[0] - other.intermediate_values[step]
        for other in done
        if step in other.intermediate_values
    ]
    return value + (median(gains) if gains else 0.0)


def _complete(trial: FrozenTrial, values: list[float]) -> FrozenTrial:
    return create_trial(values=values, params=trial.params, distributions=trial.distributions)
