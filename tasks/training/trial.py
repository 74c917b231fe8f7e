"""One trial of the sweep: a short training run, recorded below the sweep's own run.

A trial leaves the weights of its best epoch in <home>/studies/<key>/trial-<number> while it is
among the best tune.keep; cut off, it goes on from its checkpoint beside them.
"""

import logging
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial

from tasks.data.shards import Shards
from tasks.errors import ParamsError, TrainingError
from tasks.files import remove_leftovers, write_directory
from tasks.params import Settings
from tasks.schema import Budget, Train, Tune
from tasks.tracking import RunLog, open_run
from tasks.training.best import overridden
from tasks.training.cost import Meter
from tasks.training.loop import Epoch, fit
from tasks.training.memory import memory_advice
from tasks.training.models import (
    Classifier,
    ModelSpec,
    Moments,
    build,
    channel_moments,
    save_model,
    spec_for,
)
from tasks.training.ranking import ranked
from tasks.training.recording import record_epoch
from tasks.training.study_progress import report

_REFERENCE = "reference_ms"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """What all trials share; `key` is that of the sweep's run."""

    key: str
    tune: Tune
    train: Train
    budget: Budget
    shards: Shards
    settings: Settings

    def begin(self, study: optuna.Study) -> None:
        """Time the network of conf/params.yaml, once a study, if latency is an objective."""
        if "latency" in self.tune.objectives and _REFERENCE not in study.user_attrs:
            study.set_user_attr(_REFERENCE, self._meter.reference_ms())

    def __call__(self, trial: optuna.Trial) -> list[float]:
        """Train one trial; gives its value for each of tune.objectives.

        Loss in nats per image, accuracy and macro-F1 are the validation images', at the epoch
        whose weights are kept. Raises optuna.TrialPruned, and TrainingError when it diverges or is
        too large for the memory.
        """
        key, name = f"{self.key}-trial-{trial.number}", f"trial {trial.number}"
        run = open_run(key, name, self.key, self.settings, restart=True)
        run.params(trial.params)
        log.info("trial %d%s: %s", trial.number, self._of, shown(trial.params))
        try:
            values = self._fit(trial, run)
        except optuna.TrialPruned:
            log.info("trial %d stopped early: worse than the others at this epoch", trial.number)
            self._end(trial, run, "KILLED", {"state": "pruned"})
            raise
        except (TrainingError, ParamsError) as error:
            self._end(trial, run, "FAILED", {"state": "failed", "error": str(error)})
            raise
        named = zip(self.tune.objectives, values, strict=True)
        run.metrics({f"objective_{name}": value for name, value in named})
        self._end(trial, run, "FINISHED", {"state": "complete"})
        return values

    def told(self, trials: list[FrozenTrial]) -> None:
        """Keep the weights of the best trials alone, and say how far the sweep is."""
        order = ranked(trials, self.tune, self.budget)
        for trial in order[self.tune.keep :]:
            shutil.rmtree(self.folder / f"trial-{trial.number}", ignore_errors=True)
        report(trials, self.tune, self.budget)

    @property
    def folder(self) -> Path:
        """Where the trials' weights are."""
        return self.settings.home / "studies" / self.key

    def _fit(self, trial: optuna.Trial, run: RunLog) -> list[float]:
        def on_epoch(epoch: Epoch) -> None:
            record_epoch(run, epoch)
            if len(self.tune.objectives) == 1:
                trial.report(_quality(epoch, self.tune), epoch.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        config = overridden(self.train, trial.params, "tune.space")
        config = config.model_copy(update={"epochs": self.tune.epochs})
        spec = spec_for(self.shards, config, self._moments)
        torch.manual_seed(config.seed)
        train, validation = self.shards.split("train"), self.shards.split("validation")
        with memory_advice(config.batch_size):
            model = build(spec, config.weights)
            best = fit(
                model,
                train,
                validation,
                spec,
                config,
                checkpoint=self._checkpoint(trial),
                on_epoch=on_epoch,
            ).best
        trial.set_user_attr("accuracy", best.validation_accuracy)
        trial.set_user_attr("best_epoch", best.epoch)
        self._keep(trial, model, spec)
        return [_quality(best, self.tune), *self._cost(trial, model, spec)]

    def _end(self, trial: optuna.Trial, run: RunLog, status: str, tags: dict[str, str]) -> None:
        self._checkpoint(trial).unlink(missing_ok=True)
        run.tags(tags)
        run.finish(status)

    def _keep(self, trial: optuna.Trial, model: Classifier, spec: ModelSpec) -> None:
        folder = self.folder / f"trial-{trial.number}"
        remove_leftovers(folder)
        if self.tune.keep:
            write_directory(folder, lambda directory: save_model(directory, model, spec))

    def _cost(self, trial: optuna.Trial, model: Classifier, spec: ModelSpec) -> list[float]:
        if len(self.tune.objectives) == 1:
            return []
        cost = self._meter.cost(model, spec, trial.study.user_attrs.get(_REFERENCE, 0.0))
        values = {"latency": cost.latency_ms, "size": cost.size_mb}
        return [values[objective] for objective in self.tune.objectives[1:]]

    def _checkpoint(self, trial: optuna.Trial) -> Path:
        """The trial's own, or that of the lost trial which it repeats."""
        number = trial.user_attrs.get("first_try", trial.number)
        return self.folder / f"trial-{number}.pt"

    @property
    def _of(self) -> str:
        return "" if self.tune.trials is None else f" (of {self.tune.trials})"

    @cached_property
    def _meter(self) -> Meter:
        spec = spec_for(self.shards, self.train, self._moments)
        return Meter(build(spec), spec)

    @cached_property
    def _moments(self) -> Moments:
        return channel_moments(self.shards.split("train").images)


def shown(values: dict[str, object]) -> str:
    """A trial's values in a line."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
    )


def _quality(epoch: Epoch, tune: Tune) -> float:
    return float(getattr(epoch, f"validation_{tune.objectives[0]}"))
