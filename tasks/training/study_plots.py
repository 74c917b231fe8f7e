"""Optuna's plots of a study: history, parallel coordinates, importance, slices, Pareto front."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tasks.files import atomic_write
from tasks.schema import Tune
from tasks.training.ranking import rises

_LABELS = {
    "loss": "validation loss",
    "accuracy": "validation accuracy",
    "macro_f1": "validation macro-F1",
    "latency": "latency, ms",
    "size": "size, MB",
}
_SIZE = (9.0, 5.5)  # inches


def figures(study: optuna.Study, tune: Tune) -> dict[str, Any]:
    """Plotly figures by name; a plot that needs more trials than there are is left out."""
    from optuna import visualization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that targets should be low, which they are
        return dict(_plots(visualization, study, tune))


def write_images(folder: Path, study: optuna.Study, tune: Tune) -> None:
    """The same plots as <folder>/<name>.png."""
    import matplotlib

    matplotlib.use("Agg")  # files, no window
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as visualization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental; and of its own layout
        for name, axes in _plots(visualization, study, tune):
            first = axes.flat[0] if hasattr(axes, "flat") else axes
            first.figure.set_size_inches(_SIZE)
            with atomic_write(folder / f"{name}.png") as stream:
                first.figure.savefig(stream, format="png", bbox_inches="tight", metadata={})
            pyplot.close("all")


def _plots(show: ModuleType, study: optuna.Study, tune: Tune) -> Iterator[tuple[str, Any]]:
    """Of the first objective; the values of several are in the plot of the front."""
    about: dict[str, Any] = {"target_name": _LABELS[tune.objectives[0]]}
    lower = dict(about)
    if len(tune.objectives) > 1:
        about["target"] = _first
        # What is asked is which keys bring low values.
        lower["target"] = _negated if rises(tune.objectives[0]) else _first
        names = [_LABELS[name] for name in tune.objectives]
        yield "pareto_front", show.plot_pareto_front(study, target_names=names)
    yield "history", show.plot_optimization_history(study, **about)
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    every = _varied(complete, all)
    if every:
        yield "parallel_coordinate", show.plot_parallel_coordinate(study, params=every, **about)
        if len({trial.values[0] for trial in complete}) > 1:
            yield "importance", show.plot_param_importances(study, params=every, **lower)
    if some := _varied(complete, any):
        yield "slice", show.plot_slice(study, params=some, **about)


def _first(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _negated(trial: FrozenTrial) -> float:
    return -_first(trial)


def _varied(trials: list[FrozenTrial], among: Callable[[Iterator[bool]], bool]) -> list[str]:
    """Keys that `all` or `any` of the trials have, with more than one value."""
    keys = sorted({key for trial in trials for key in trial.params})
    return [
        key
        for key in keys
        if among(key in trial.params for trial in trials)
        and len({trial.params[key] for trial in trials if key in trial.params}) > 1
    ]
