"""How the sweep searches: the space, samplers and pruners, by the names in conf/params.yaml.

A trial's sampler is made for that trial and seeded by its number, so a study that was cut off
goes the way an unbroken one would.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tasks.schema import Choices, FloatRange, IntRange, Range, Tune, in_order
from tasks.training.gaussian import GaussianSampler

_RANDOM_TRIALS = 5  # before the sampler has enough to model
_UNPRUNED_TRIALS = 3  # before a median says anything
_REDUCTION = 3  # of the trials at a rung, one goes on
Values = Mapping[str, Any]


def suggest(trial: optuna.Trial, space: Mapping[str, Range], current: Values) -> None:
    """Draw the trial's value of every key that is searched for it.

    `current` has today's value of each key that a condition asks for.
    """
    for key in in_order(space):
        if _applies(space[key], {**current, **trial.params}):
            _draw(trial, key, distribution(space[key]))


def distribution(bounds: Range) -> BaseDistribution:
    """Optuna's distribution for a range of tune.space."""
    if isinstance(bounds, Choices):
        return CategoricalDistribution(bounds.choices)
    if isinstance(bounds, FloatRange):
        return FloatDistribution(bounds.low, bounds.high, log=bounds.log)
    return IntDistribution(bounds.low, bounds.high, log=bounds.log, step=bounds.step)


def inside(values: Values, space: Mapping[str, Range]) -> dict[str, Any]:
    """The values that the space contains; the sampler draws the others."""
    return {key: values[key] for key in space if _contains(space[key], values[key])}


def sampler(config: Tune) -> BaseSampler:
    """The sampler that `config` names.

    tpe: tree-structured Parzen estimator (Bergstra et al. 2011), over all keys together, or with
    conditions over each group of keys that are searched together. gp: Gaussian process with
    expected improvement (Jones et al. 1998); it draws conditional keys at random. cmaes: CMA-ES
    (Hansen & Ostermeier 2001) with margin for whole numbers (Hamano et al. 2022); it draws choices
    and conditional keys at random.
    """
    conditional = any(bounds.when for bounds in config.space.values())
    whole = any(isinstance(bounds, IntRange) for bounds in config.space.values())

    def make(number: int) -> BaseSampler:
        seed = config.seed + number
        if config.sampler == "random":
            return RandomSampler(seed=seed)
        if config.sampler == "gp":
            return GaussianSampler(
                seed=seed, n_startup_trials=_RANDOM_TRIALS, warn_independent_sampling=False
            )
        if config.sampler == "cmaes":
            return CmaEsSampler(
                seed=seed,
                n_startup_trials=_RANDOM_TRIALS,
                warn_independent_sampling=False,
                with_margin=whole,
            )
        return TPESampler(
            seed=seed,
            n_startup_trials=_RANDOM_TRIALS,
            multivariate=True,
            group=conditional,
        )

    return _PerTrial(make)


def pruner(config: Tune) -> BasePruner:
    """The pruner that `config` names.

    median: after the first epoch and the one past the middle. asha: asynchronous successive
    halving (Li et al. 2020); hyperband: several of these that begin to prune at different epochs
    (Li et al. 2018).
    """
    if config.pruner == "hyperband":
        return HyperbandPruner(max_resource=config.epochs)
    if config.pruner == "asha":
        first = max(1, config.epochs // _REDUCTION**2)
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=_REDUCTION)
    if config.pruner == "median":
        # Not in between: the rate is at its highest there, and losses say little of the end.
        return MedianPruner(_UNPRUNED_TRIALS, interval_steps=config.epochs // 2 + 1)
    return NopPruner()


class _PerTrial(BaseSampler):
    """A fresh sampler for each trial, made by the trial's number."""

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._sampler: BaseSampler = RandomSampler()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        with warnings.catch_warnings():  # two of the samplers' options are experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._sampler = self._make(trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _applies(bounds: Range, values: Values) -> bool:
    return all(values[key] in allowed for key, allowed in (bounds.when or {}).items())


def _draw(trial: optuna.Trial, key: str, bounds: BaseDistribution) -> None:
    if isinstance(bounds, CategoricalDistribution):
        trial.suggest_categorical(key, bounds.choices)
    elif isinstance(bounds, IntDistribution):
        trial.suggest_int(key, bounds.low, bounds.high, step=bounds.step, log=bounds.log)
    elif isinstance(bounds, FloatDistribution):
        trial.suggest_float(key, bounds.low, bounds.high, log=bounds.log)


def _contains(bounds: Range, value: Any) -> bool:
    space = distribution(bounds)
    try:
        return bool(space._contains(space.to_internal_repr(value)))
    except ValueError:
        return False
