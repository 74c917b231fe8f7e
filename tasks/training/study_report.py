"""The outcome of a sweep as files: best.yaml, study.json, trials.csv, study.html, plots/*.png.

Nothing in them depends on when or how fast the trials ran, unless latency is an objective: a
study that was cut off and continued leaves the same bytes as an unbroken one.
"""

import csv
from html import escape
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from tasks.files import atomic_write, write_json, write_text
from tasks.training.accounting import Trials, error_of
from tasks.training.best import BEST, STUDY, write_best
from tasks.training.ranking import excess, ranked
from tasks.training.study import direction
from tasks.training.study_plots import figures, write_images
from tasks.training.trial import Sweep, shown

TRIALS, REPORT, PLOTS = "trials.csv", "study.html", "plots"
_COLUMNS = {"latency": "latency_ms", "size": "size_mb"}


def write_outcome(directory: Path, trials: Trials, sweep: Sweep) -> None:
    """Write all of it into `directory`; at least one of the trials is complete."""
    order = ranked(trials, sweep.tune, sweep.budget)
    best, kept = order[0], [trial.number for trial in order[: sweep.tune.keep]]
    facts = {"trial": best.number, "value": best.values[0], "accuracy": best.user_attrs["accuracy"]}
    write_best(directory / BEST.name, best.params, {**facts, **_costs(best, sweep)})
    write_json(directory / STUDY, {"key": sweep.key, "best": kept})
    _write_table(directory / TRIALS, trials, sweep)
    study = _study(trials, sweep)
    write_text(directory / REPORT, _page(study, best, sweep))
    write_images(directory / PLOTS, study, sweep.tune)


def _costs(trial: FrozenTrial, sweep: Sweep) -> dict[str, float]:
    """Latency and size, where they were measured, by the names of their columns."""
    named = zip(sweep.tune.objectives, trial.values or (), strict=False)
    return {_COLUMNS[name]: value for name, value in named if name in _COLUMNS}


def _write_table(path: Path, trials: Trials, sweep: Sweep) -> None:
    keys = sorted({key for trial in trials for key in trial.params})
    costs = [_COLUMNS[name] for name in sweep.tune.objectives[1:]]
    facts = ["value", "accuracy", "best_epoch"]
    with atomic_write(path, "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["trial", "state", *facts, *costs, *keys, "retry_of", "error"])
        for trial in trials:
            known = {**trial.user_attrs, **_costs(trial, sweep), "value": _value(trial)}
            values = [known.get(name, "") for name in [*facts, *costs]]
            drawn = [trial.params.get(key, "") for key in keys]
            ends = [trial.user_attrs.get("retry_of", ""), error_of(trial)]
            table.writerow([trial.number, trial.state.name, *values, *drawn, *ends])


def _value(trial: FrozenTrial) -> object:
    """Of a pruned trial, the last that it reached."""
    return trial.values[0] if trial.values else ""


def _study(trials: Trials, sweep: Sweep) -> optuna.Study:
    study = optuna.create_study(directions=[direction(name) for name in sweep.tune.objectives])
    study.add_trials(trials)
    return study


def _page(study: optuna.Study, best: FrozenTrial, sweep: Sweep) -> str:
    """One HTML file with plotly.js inside, readable without a network."""
    html = [
        figure.to_html(full_html=False, include_plotlyjs=(number == 0), div_id=f"plot-{number}")
        for number, figure in enumerate(figures(study, sweep.tune).values())
    ]
    count = len(study.trials)
    title = f"Sweep: {count} trials, best is number {best.number} ({shown(best.params)})"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sweep</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{_front(study, best, sweep)}{''.join(html)}</body></html>\n"
    )


_STYLE = (
    "body{font-family:sans-serif}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}"
)


def _front(study: optuna.Study, best: FrozenTrial, sweep: Sweep) -> str:
    """The trials that no other beats in every objective, as a table."""
    objectives = sweep.tune.objectives
    if len(objectives) == 1:
        return ""
    names = ["trial", *(_COLUMNS.get(name, name) for name in objectives), "", "values"]
    rows = [
        [
            str(trial.number),
            *(f"{value:.4g}" for value in trial.values),
            _remark(trial, best, sweep),
            shown(trial.params),
        ]
        for trial in sorted(study.best_trials, key=lambda trial: trial.values[0])
    ]
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<h2>Pareto front</h2><table><tr>{_cells('th', names)}</tr>{body}</table>"


def _remark(trial: FrozenTrial, best: FrozenTrial, sweep: Sweep) -> str:
    over = excess(trial, sweep.tune, sweep.budget)
    limit = f"{100 * over:.0f} % over budget" if over else "within budget"
    return f"{limit}, taken" if trial.number == best.number else limit


def _cells(tag: str, texts: list[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
