"""The search space, samplers and pruners of a sweep, on functions that take no training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from tasks.params import Settings
from tasks.schema import Budget, Tune
from tasks.training.accounting import error_of, seconds_used
from tasks.training.ranking import ranked
from tasks.training.storage import place_of
from tasks.training.study import _give_up_lost, run_study

BASE: dict[str, Any] = {
    "trials": 12,
    "minutes": None,
    "epochs": 9,
    "seed": 0,
    "sampler": "tpe",
    "pruner": "none",
    "objectives": ["loss"],
    "keep": 0,
    "space": {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "batch_size": {"type": "int", "low": 16, "high": 64, "step": 16},
        "architecture": {"type": "categorical", "choices": ["resnet_small", "resnet18"]},
        "width": {
            "type": "int", "low": 4, "high": 64, "log": True,
            "when": {"architecture": ["resnet_small"]},
        },
    },
}  # fmt: skip
CURRENT = {"lr": 0.1, "batch_size": 32, "architecture": "resnet_small", "width": 16}
NO_LIMIT = Budget(
    max_accuracy_drop=1,
    min_agreement=0,
    max_latency_ms=None,
    max_size_mb=None,
    max_memory_mb=None,
    otherwise="fail",
)


def tune(**values: Any) -> Tune:
    return Tune.model_validate({**BASE, **values})


class Function:
    """An objective without training: far from lr 0.01 is bad, and width matters a little."""

    def __init__(self, objectives: int = 1, epochs: int = 0) -> None:
        self.objectives, self.epochs, self.ran = objectives, epochs, 0

    def begin(self, study: optuna.Study) -> None:
        pass

    def __call__(self, trial: optuna.Trial) -> list[float]:
        loss = abs(math.log10(trial.params["lr"]) + 2) + trial.params.get("width", 4) / 1000
        for epoch in range(1, self.epochs + 1):
            self.ran += 1
            trial.report(loss + 1 / epoch, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return [loss, *(trial.params.get("width", 4) for _ in range(self.objectives - 1))]

    def told(self, trials: list[FrozenTrial]) -> None:
        pass


class Rising(Function):
    """Of five trials one is bad from the first epoch on, one from the third, the others good."""

    def __call__(self, trial: optuna.Trial) -> list[float]:
        since = [10, 1, 10, 3, 10][trial.number % 5]
        for epoch in range(1, 10):
            trial.report(float(epoch >= since) + 1 / epoch - trial.number / 1000, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return [float(since < 10)]


@pytest.fixture
def search(settings: Settings) -> Callable[..., list[FrozenTrial]]:
    """Runs a study of its own for each call."""
    count = iter(range(100))

    def run(config: Tune, objective: Function | None = None) -> list[FrozenTrial]:
        place = place_of(f"tune-{next(count)}", settings)
        return run_study(place, config, CURRENT, objective or Function(len(config.objectives)))

    return run


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes"])
def test_every_sampler_keeps_to_the_space_and_its_conditions_and_repeats(
    search: Callable[..., list[FrozenTrial]], sampler: str
):
    trials = search(tune(sampler=sampler))
    assert trials[0].params == CURRENT  # today's values come first
    assert len({trial.params["lr"] for trial in trials}) == 12
    for trial in trials:
        assert 1e-4 <= trial.params["lr"] <= 1.0
        assert trial.params["batch_size"] in (16, 32, 48, 64)
        assert ("width" in trial.params) == (trial.params["architecture"] == "resnet_small")
    assert {trial.params["architecture"] for trial in trials} == {"resnet_small", "resnet18"}
    again = search(tune(sampler=sampler))
    if sampler != "cmaes":  # keeps its state under the study's name, which differs here
        assert [trial.params for trial in again] == [trial.params for trial in trials]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_a_sampler_that_models_finds_more_than_chance(
    search: Callable[..., list[FrozenTrial]], sampler: str
):
    space = {"lr": BASE["space"]["lr"], "momentum": {"type": "float", "low": 0.0, "high": 0.9}}

    def late_mean(name: str) -> float:
        config = tune(sampler=name, trials=40, space=space)
        place_trials = search_values(search, config)
        return sum(place_trials[20:]) / 20

    assert late_mean(sampler) < 0.7 * late_mean("random")


def search_values(search: Callable[..., list[FrozenTrial]], config: Tune) -> list[float]:
    CURRENT["momentum"] = 0.5
    return [trial.values[0] for trial in search(config)]


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median"])
def test_every_pruner_ends_bad_trials_and_not_the_best(
    search: Callable[..., list[FrozenTrial]], pruner: str
):
    objective = Function(epochs=9)
    trials = search(tune(pruner=pruner, sampler="random", trials=30), objective)
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(pruned) >= 5
    assert objective.ran < 0.8 * 30 * 9
    loss = {t.number: abs(math.log10(t.params["lr"]) + 2) for t in trials}
    worse = sorted(loss[trial.number] for trial in pruned)[len(pruned) // 2]
    assert min(loss[trial.number] for trial in complete) < worse


def test_the_median_is_asked_after_the_first_epoch_and_past_the_middle(
    search: Callable[..., list[FrozenTrial]],
):
    trials = search(tune(pruner="median", sampler="random", trials=15), Rising())
    ended = {t.last_step for t in trials if t.state is TrialState.PRUNED}
    assert ended == {1, 5}


def test_several_objectives_give_a_front_and_the_budget_chooses(
    search: Callable[..., list[FrozenTrial]],
):
    config = tune(objectives=["accuracy", "latency", "size"], sampler="tpe", trials=8)
    trials = [
        create_trial(values=values)
        for values in ([0.90, 5.0, 1.0], [0.95, 9.0, 4.0], [0.92, 6.0, 2.0], [0.93, 20.0, 9.0])
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    budget = NO_LIMIT.model_copy(update={"max_latency_ms": 7.0})
    assert [t.number for t in ranked(trials, config, NO_LIMIT)] == [1, 3, 2, 0]
    assert [t.number for t in ranked(trials, config, budget)] == [2, 0, 1, 3]
    tight = NO_LIMIT.model_copy(update={"max_latency_ms": 2.0})
    assert ranked(trials, config, tight)[0].number == 0  # none is within: the least over
    assert len(search(config)[0].values) == 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trials": None, "minutes": None}, "a sweep needs an end"),
        ({"objectives": ["accuracy", "size"], "pruner": "median"}, "set pruner to none"),
        ({"objectives": ["accuracy", "size"], "sampler": "cmaes"}, "knows one objective"),
        ({"objectives": ["latency", "accuracy"]}, "loss, accuracy or macro_f1 first"),
        ({"objectives": ["loss", "macro_f1"]}, "loss, accuracy or macro_f1 first"),
        ({"objectives": ["loss", "size", "size"]}, "named once each"),
        (
            {"space": {"lr": {"type": "int", "low": 1, "high": 6, "step": 2}}},
            "high must be low and some steps",
        ),
        (
            {"space": {**BASE["space"], "depth": {
                "type": "int", "low": 1, "high": 2, "when": {"architecture": ["resnet19"]}}}},
            "'resnet19' is none of its choices",
        ),
        (
            {"space": {**BASE["space"], "depth": {
                "type": "int", "low": 1, "high": 2, "when": {"lr": [0.1]}}}},
            "lr is searched as a range",
        ),
        (
            {"space": {key: {"type": "categorical", "choices": [True], "when": {other: [True]}}
                       for key, other in (("a", "b"), ("b", "a"))}},
            "the conditions of a, b wait for each other",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(values: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        tune(**values)


def test_minutes_count_once_where_trials_ran_beside_each_other():
    from datetime import datetime, timedelta

    start = datetime(2026, 1, 1)

    def ran(number: int, since: int, until: int) -> FrozenTrial:
        trial = create_trial(value=1.0)
        trial.number = number
        trial.datetime_start = start + timedelta(seconds=since)
        trial.datetime_complete = start + timedelta(seconds=until)
        return trial

    assert seconds_used([ran(0, 0, 10), ran(1, 5, 12), ran(2, 20, 25)]) == 17.0


def test_minutes_alone_end_a_sweep(search: Callable[..., list[FrozenTrial]]):
    class Slow(Function):
        def __call__(self, trial: optuna.Trial) -> list[float]:
            import time

            time.sleep(0.2)
            return super().__call__(trial)

    trials = search(tune(trials=None, minutes=1 / 60), Slow())
    assert 2 <= len(trials) <= 6


@pytest.mark.parametrize("by_kernel", [False, True])
def test_a_trial_that_the_kernel_ended_for_memory_is_not_repeated_for_ever(
    settings: Settings, by_kernel: bool
):
    lines = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    place = place_of("tune-1", settings)
    study = optuna.create_study(storage=place.storage(), study_name="tune-1")
    trial = study.ask()
    trial.set_user_attr("worker", place.worker)
    trial.set_user_attr("kernel_kills", int(lines["oom_kill"]) - by_kernel)
    trial.suggest_float("lr", 1e-4, 1.0, log=True)
    place.close()
    trials = run_study(place_of("tune-1", settings), tune(trials=3), CURRENT, Function())
    states = [trial.state.name for trial in trials]
    assert states == ["FAIL"] * by_kernel + ["COMPLETE"] * 3
    assert [t.user_attrs.get("retry_of") for t in trials[by_kernel:]] == (
        [0, None, None] if by_kernel else [None, None, None]
    )


def test_a_trial_that_kills_every_worker_is_tried_three_times(settings: Settings):
    for _ in range(3):
        place = place_of("tune-1", settings)
        study = optuna.create_study(
            storage=place.storage(), study_name="tune-1", load_if_exists=True
        )
        with place.turn():
            _give_up_lost(study, place)
        trial = study.ask()
        trial.set_user_attr("worker", place.worker)
        trial.set_user_attr("kernel_kills", -1)  # as if the kernel had ended it
        trial.suggest_float("lr", 1e-4, 1.0, log=True)
        place.close()
    trials = run_study(place_of("tune-1", settings), tune(trials=2), CURRENT, Function())
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "FAIL", "COMPLETE"]
    assert len({trial.params["lr"] for trial in trials[:3]}) == 1
    assert error_of(trials[2]) == "its worker was killed"
