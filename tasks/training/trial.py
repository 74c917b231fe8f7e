"""One trial of the sweep: a short training run, recorded below the sweep's own run."""

import logging
from dataclasses import dataclass
from functools import cached_property

import optuna
import torch

from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.params import Settings
from tasks.schema import Train, Tune
from tasks.tracking import RunLog, open_run
from tasks.training.best import overridden
from tasks.training.loop import Epoch, fit
from tasks.training.models import Moments, build, channel_moments, spec_for
from tasks.training.recording import record_epoch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """What all trials share; `key` is that of the sweep's run."""

    key: str
    tune: Tune
    train: Train
    shards: Shards
    settings: Settings

    def __call__(self, trial: optuna.Trial) -> float:
        """Train one trial; gives its lowest validation loss, in nats per image.

        Raises optuna.TrialPruned, and TrainingError when it diverges.
        """
        key, name = f"{self.key}-trial-{trial.number}", f"trial {trial.number}"
        run = open_run(key, name, self.key, self.settings, restart=True)
        run.params(trial.params)
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in trial.params.items()
        )
        log.info("trial %d (of %d): %s", trial.number, self.tune.trials, shown)
        try:
            value = self._fit(trial, run)
        except optuna.TrialPruned:
            log.info("trial %d stopped early: worse than the others at this epoch", trial.number)
            run.tags({"state": "pruned"})
            run.finish("KILLED")
            raise
        except TrainingError as error:
            run.tags({"state": "failed", "error": str(error)})
            run.finish("FAILED")
            raise
        run.finish()
        return value

    def _fit(self, trial: optuna.Trial, run: RunLog) -> float:
        def on_epoch(epoch: Epoch) -> None:
            record_epoch(run, epoch)
            trial.report(epoch.validation_loss, epoch.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        config = overridden(self.train, trial.params, "tune.space")
        config = config.model_copy(update={"epochs": self.tune.epochs})
        spec = spec_for(self.shards, config, self._moments)
        torch.manual_seed(config.seed)
        model = build(spec, config.weights)
        train, validation = self.shards.split("train"), self.shards.split("validation")
        best = fit(model, train, validation, spec, config, on_epoch=on_epoch).best
        trial.set_user_attr("accuracy", best.validation_accuracy)
        trial.set_user_attr("best_epoch", best.epoch)
        return best.validation_loss

    @cached_property
    def _moments(self) -> Moments:
        return channel_moments(self.shards.split("train").images)
