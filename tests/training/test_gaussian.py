"""What a Gaussian process is told of trials that did not complete, and that it learns from it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from tasks.errors import TrainingError
from tasks.params import Settings
from tasks.schema import Tune
from tasks.training.gaussian import known
from tasks.training.storage import place_of
from tasks.training.study import run_study

SPACE = {"lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True}}
RATE = {"lr": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)}
TUNE = {
    "trials": 14, "minutes": None, "epochs": 9, "seed": 0, "sampler": "gp", "pruner": "none",
    "objectives": ["loss"], "keep": 0, "space": SPACE,
}  # fmt: skip


class Cliff:
    """Ever better with the rate, up to 0.02; beyond, training fails, or is stopped, at once."""

    def __init__(self, ends: Callable[[optuna.Trial], Exception]) -> None:
        self.ends = ends

    def begin(self, study: optuna.Study) -> None:
        pass

    def __call__(self, trial: optuna.Trial) -> list[float]:
        rate = trial.params["lr"]
        if rate > 0.02:
            raise self.ends(trial)
        trial.report(1 - math.log10(rate), 1)
        return [-math.log10(rate)]

    def told(self, trials: list[FrozenTrial]) -> None:
        pass


def _fails(trial: optuna.Trial) -> Exception:
    return TrainingError("the loss is not finite")


def _stops(trial: optuna.Trial) -> Exception:
    trial.report(9.0, 1)
    return optuna.TrialPruned()


@pytest.mark.parametrize("ends", [_fails, _stops])
def test_it_keeps_away_from_what_fails_or_is_stopped(
    settings: Settings, ends: Callable[[optuna.Trial], Exception]
):
    trials = run_study(
        place_of("tune-1", settings), Tune.model_validate(TUNE), {"lr": 0.001}, Cliff(ends)
    )
    modelled = trials[6:]  # the first are today's values and random ones
    complete = [trial for trial in modelled if trial.state is TrialState.COMPLETE]
    assert len(complete) >= len(modelled) / 2  # Optuna's own repeats one rate for ever


def test_a_study_that_goes_on_goes_the_way_of_an_unbroken_one(settings: Settings, tmp_path: Path):
    def study(home: Path, trials: int) -> list[FrozenTrial]:
        place = place_of("tune-1", settings.model_copy(update={"home": home}))
        config = Tune.model_validate({**TUNE, "trials": trials})
        return run_study(place, config, {"lr": 0.001}, Cliff(_stops))

    unbroken = study(tmp_path / "unbroken", 9)
    study(tmp_path / "broken", 7)
    broken = study(tmp_path / "broken", 9)
    assert {trial.state.name for trial in unbroken} == {"COMPLETE", "PRUNED"}
    assert [trial.params for trial in broken] == [trial.params for trial in unbroken]


def _trial(state: TrialState, value: float | None = None, **facts: Any) -> FrozenTrial:
    return create_trial(state=state, value=value, params={"lr": 0.1}, distributions=RATE, **facts)


@pytest.mark.parametrize(
    ("direction", "worst", "extended"), [("minimize", 0.9, 1.7), ("maximize", 0.5, 1.7)]
)
def test_each_trial_that_says_something_has_a_value(direction: str, worst: float, extended: float):
    study = optuna.create_study(direction=direction)
    study.add_trials(
        [
            _trial(TrialState.COMPLETE, 0.5, intermediate_values={1: 0.8, 2: 0.5}),
            _trial(TrialState.COMPLETE, 0.9, intermediate_values={1: 1.2, 2: 0.9}),
            _trial(TrialState.PRUNED, intermediate_values={1: 2.0}),
            _trial(TrialState.FAIL, user_attrs={"error": "diverged"}),
            _trial(TrialState.FAIL),  # lost: it is tried again under another number
            _trial(TrialState.RUNNING),
        ]
    )
    copy = known(study).get_trials(deepcopy=False)
    assert [trial.number for trial in copy] == list(range(6))
    complete = [trial for trial in copy if trial.state is TrialState.COMPLETE]
    assert [trial.values[0] for trial in complete] == pytest.approx([0.5, 0.9, extended, worst])
    assert [trial.state.name for trial in copy[4:]] == ["FAIL", "RUNNING"]


def test_without_a_complete_trial_nothing_is_made_up():
    study = optuna.create_study()
    study.add_trial(_trial(TrialState.FAIL, user_attrs={"error": "diverged"}))
    assert known(study).trials[0].state is TrialState.FAIL
