"""`python -m tasks.training.worker`: one more worker of the sweep in conf/params.yaml.

It joins the study (a file under VISIONLOOP_HOME, or VISIONLOOP_STUDY_STORAGE), trains trials
beside the others until the budget is used, and ends. The step `tune` writes the outcome.
"""

import logging

from tasks.data.shards import open_shards
from tasks.errors import ParamsError
from tasks.params import Settings, load_params, load_settings
from tasks.step import run_process
from tasks.training.tune import check_space, open_sweep_run, run_trials, sweep_of

log = logging.getLogger(__name__)


def work(settings: Settings, expected: str | None = None) -> int:
    """Join the study of this directory's params and shards; gives the number of its trials.

    Raises ParamsError when it is not the study `expected`, by its key.
    """
    params, shards = load_params(), open_shards()
    check_space(params.tune, params.train)
    objective = sweep_of(params, shards, settings)
    if expected is not None and objective.key != expected:
        raise ParamsError(
            f"the params and shards here are those of study {objective.key}, not {expected}; "
            "bring conf/params.yaml and data/shards of the machine that began the sweep"
        )
    if settings.study_storage is None:  # elsewhere whoever began the sweep has recorded it
        open_sweep_run(objective, params)
    log.info("joined study %s", objective.key)
    trials = run_trials(objective)
    log.info("study %s is at its end: %d trials", objective.key, len(trials))
    return len(trials)


def main() -> None:
    """One worker."""
    work(load_settings())


if __name__ == "__main__":
    run_process(main)
