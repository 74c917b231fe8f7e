"""The outcome of a sweep as files: best.yaml, trials.csv, and Optuna's plots in study.html.

Nothing in them depends on when or how fast the trials ran: a study that was cut off and
continued leaves the same bytes as an unbroken one.
"""

import csv
from html import escape
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tasks.files import atomic_write, write_text
from tasks.training.best import BEST, write_best

TRIALS, REPORT = "trials.csv", "study.html"
OUTCOME = (BEST.name, TRIALS, REPORT)
_PLOTTABLE = 2  # trials a plot of differences needs


def best_of(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """The completed trial with the lowest validation loss, the first of equals."""
    complete = _complete(trials)
    return min(complete, key=lambda trial: (trial.value, trial.number)) if complete else None


def write_outcome(directory: Path, trials: list[FrozenTrial], best: FrozenTrial) -> None:
    """Write OUTCOME into `directory`."""
    accuracy = best.user_attrs["accuracy"]
    write_best(directory / BEST.name, best.params, best.number, best.value or 0.0, accuracy)
    _write_table(directory / TRIALS, trials)
    write_text(directory / REPORT, _page(trials, best))


def _write_table(path: Path, trials: list[FrozenTrial]) -> None:
    keys = sorted({key for trial in trials for key in trial.params})
    with atomic_write(path, "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["trial", "state", "value", "accuracy", "best_epoch", *keys, "error"])
        for trial in trials:
            facts = [trial.user_attrs.get(name, "") for name in ("accuracy", "best_epoch")]
            values = [trial.params.get(key, "") for key in keys]
            error = trial.user_attrs.get("error", "")
            row = [trial.number, trial.state.name, _shown(trial), *facts, *values, error]
            table.writerow(row)


def _page(trials: list[FrozenTrial], best: FrozenTrial) -> str:
    """One HTML file with plotly.js inside, readable without a network."""
    study = optuna.create_study(direction="minimize")
    study.add_trials(trials)
    html = [
        figure.to_html(full_html=False, include_plotlyjs=(number == 0), div_id=f"plot-{number}")
        for number, figure in enumerate(_figures(study))
    ]
    chosen = escape(", ".join(f"{key} = {value}" for key, value in best.params.items()))
    title = f"Sweep: {len(trials)} trials, best is number {best.number} ({chosen})"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sweep</title></head>'
        f"<body><h1>{title}</h1>{''.join(html)}</body></html>\n"
    )


def _figures(study: optuna.Study) -> list[Any]:
    from optuna import visualization as show

    label = "validation loss"
    figures = [show.plot_optimization_history(study, target_name=label)]
    complete = _complete(study.trials)
    searched = _varied(complete)
    if len(complete) >= _PLOTTABLE and searched:
        figures.append(show.plot_parallel_coordinate(study, target_name=label))
        if len({trial.value for trial in complete}) > 1:
            figures.append(show.plot_param_importances(study, target_name=label))
    return figures


def _varied(trials: list[FrozenTrial]) -> list[str]:
    keys = trials[0].params if trials else {}
    return [key for key in keys if len({trial.params[key] for trial in trials}) > 1]


def _complete(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state is TrialState.COMPLETE]


def _shown(trial: FrozenTrial) -> object:
    return "" if trial.value is None else trial.value
