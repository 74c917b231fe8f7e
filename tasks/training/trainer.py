"""One training run, epoch by epoch and step by step; saved and taken up again at any step."""

import copy
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.training import distributed
from tasks.training.checkpoint import (
    Checkpoints,
    State,
    fingerprint,
    random_state,
    restore_random_state,
)
from tasks.training.energy import Meter
from tasks.training.epoch_batches import EpochBatches, Step
from tasks.training.finetuning import start_training
from tasks.training.health import (
    Diverged,
    Epoch,
    StepHealth,
    Tally,
    Watch,
    peak_memory_mb,
    report,
)
from tasks.training.history import History
from tasks.training.learner import Learner
from tasks.training.losses import Loss, class_counts, training_loss, validation_weights
from tasks.training.models import ModelSpec
from tasks.training.validation import validate

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit

_LOWER, _STEP_BACKS = 0.25, 3  # of the rate after a divergence, and how often
log = logging.getLogger(__name__)


class Trainer:
    """The state of one training run; `history` tells how far it is."""

    def __init__(
        self,
        model: nn.Module,
        train: "ShardSplit",
        validation: "ShardSplit",
        spec: ModelSpec,
        config: Train,
        loss: Loss | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.train, self.validation = train, validation
        self.spec, self.config = spec, config
        self.device = next(model.parameters()).device
        self.batches = EpochBatches(train, spec, config, self.device)
        counts = class_counts(train.labels, len(spec.classes))
        self.class_weights = validation_weights(config.imbalance, counts)
        arrays = [train.hashes, train.labels, validation.hashes, validation.labels]
        arrays += [] if train.weights is None else [train.weights]
        settings = [spec.model_dump(mode="json"), config.deciding()]
        run = fingerprint(model, settings, arrays)
        self.checkpoints = Checkpoints(checkpoint, run, config.checkpoint_seconds)
        loss = loss or training_loss(config.imbalance, config.label_smoothing, counts)
        self.learner = Learner(model, config, self.batches.steps, loss)
        self.watch = Watch(config, train.paths, self.device)
        self.on_step: Callable[[StepHealth], None] | None = None
        self.on_images: Callable[[int], None] | None = None
        self.history = History(config)
        self.epoch, self.interval = Tally.empty(self.device), Tally.empty(self.device)
        self.meter = Meter(self.device)
        self._random: State | None = None  # where a run that was cut off in an epoch was
        self._good: State | None = None  # the learner as the epoch began

    @property
    def images_done(self) -> int:
        """Images trained on so far, over all epochs."""
        return len(self.history.epochs) * self.batches.shown + self.epoch.images

    def one_epoch(self) -> Epoch:
        """Train on the epoch's images, validate, and keep the weights if they are the best.

        Of an epoch that was cut off, what is left of it.
        """
        while True:
            try:
                return self._one_epoch()
            except Diverged as error:
                self._step_back(error)

    def resume(self) -> None:
        """Take up the run's own checkpoint, if there is one."""
        state = distributed.on_writer(self.checkpoints.load)
        if state is None:
            return
        self.learner.load_state_dict(state["learner"])
        self.history.load(state)
        self.epoch = Tally.of(state["epoch"], self.device)
        self.interval = Tally.of(state["interval"], self.device)
        if self.epoch.steps:
            self._random, self._good = state["random"], state["good"]
        step = f", step {self.epoch.steps} of {self.batches.steps} of the next"
        done, place = len(self.history.epochs), step if self.epoch.steps else ""
        log.info("went on from %s after epoch %d%s", self.checkpoints.path, done, place)

    def save(self) -> None:
        """Write a checkpoint after an epoch: always after the last, else unless it is too soon."""
        if self.history.finished or self._due(epoch_ended=True):
            self._save()

    def _due(self, epoch_ended: bool = False) -> bool:
        return distributed.on_writer(lambda: self.checkpoints.due(epoch_ended=epoch_ended))

    def _save(self) -> None:
        distributed.on_writer(lambda: self.checkpoints.save(self._state()))

    def _one_epoch(self) -> Epoch:
        number, started = len(self.history.epochs) + 1, time.perf_counter()
        self.meter = Meter(self.device)
        for batches, images in self.order(number):
            self.step(batches, images)
            if self._due():
                self.watch.check()
                self._save()
        self.watch.check()
        train_loss, norm = self.epoch.means()
        rate, memory = self.epoch.images_per_second(), peak_memory_mb(self.device)
        found = validate(self.learner.result, self.validation, self.spec, self.class_weights)
        self.watch.check_epoch(number, found.loss)
        epoch = Epoch(
            number,
            *(train_loss, *found, self.learner.lr, norm, rate, memory),
            seconds=time.perf_counter() - started,
            joules=self.meter.joules,
        )
        self._end(epoch)
        report(epoch, self.config.epochs)
        return epoch

    def order(self, number: int) -> Iterator[tuple[Step, Iterator[Tensor]]]:
        """What is left of an epoch: each step, and what reads its images.

        All its random numbers come from the seed and its number.
        """
        torch.manual_seed(self.config.seed + 1_000_003 * number)
        start_training(self.learner.model, self.config.finetune, number)
        self.learner.begin_epoch()
        left = self.batches.draw()[self.epoch.steps :]
        if self._random is not None:
            restore_random_state(self._random, self.device)
            self._random = None
        elif self.config.on_divergence == "step_back":
            self._good = copy.deepcopy(self.learner.state_dict())
        images = self.batches.read(left)
        return ((step, images) for step in left)

    def step(self, batches: Step, images: Iterator[Tensor]) -> None:
        """One optimizer step on the batches, whose images come next."""
        lr, count = self.learner.lr, sum(len(rows) for rows in batches)
        prepared = self.batches.prepared(batches, images)
        loss, norm = self.learner.update(prepared, len(batches), count, self.epoch.steps)
        for tally in (self.epoch, self.interval):
            tally.add(loss, norm, count)
        done = len(self.history.epochs)
        where = f"epoch {done + 1}, step {self.epoch.steps} of {self.batches.steps}"
        self.watch.see(where, loss / count, norm, lr, batches)
        if self.on_images:
            self.on_images(count)
        self.meter.read()
        step = done * self.batches.steps + self.epoch.steps
        if step % self.config.log_steps == 0:
            self.watch.check_scale(where, self.learner.precision.scaler.get_scale())
            self._record(step, lr)

    def _record(self, step: int, lr: float) -> None:
        if self.on_step:
            rate, memory = self.interval.images_per_second(), peak_memory_mb(self.device)
            self.on_step(StepHealth(step, *self.interval.means(), lr, rate, memory))
        self.interval = Tally.empty(self.device)

    def _end(self, epoch: Epoch) -> None:
        self.learner.schedule.end_epoch(epoch.validation_loss)
        self.history.add(epoch, self.learner.result)
        self.epoch = Tally.empty(self.device)

    def _step_back(self, error: Diverged) -> None:
        """Back to the start of the epoch with a quarter of the rate; raises when that is no use."""
        if self._good is None:
            raise error
        step_backs = self.history.step_backs
        if len(step_backs) >= _STEP_BACKS:
            tried = f"after {_STEP_BACKS} steps back, at {self.learner.rate:g} of the learning rate"
            raise TrainingError(f"{error} ({tried})")
        rate = self.learner.rate * _LOWER
        self.learner.load_state_dict(copy.deepcopy(self._good))
        self.learner.rate = rate
        step_backs.append(str(error))
        if self.on_images:
            self.on_images(-self.epoch.images)
        self.epoch, self.interval = Tally.empty(self.device), Tally.empty(self.device)
        self.watch.forget()
        back = "back to the start of the epoch, with %g of the learning rate (%d of at most %d)"
        log.warning(f"%s; {back}", error, rate, len(step_backs), _STEP_BACKS)

    def _state(self) -> State:
        return {
            "spec": self.spec.model_dump(mode="json"),  # for `train.weights`
            "learner": self.learner.state_dict(),
            **self.history.state(),
            "epoch": self.epoch.state(),
            "interval": self.interval.state(),
            "random": random_state(self.device),
            "good": self._good if self.epoch.steps else None,
        }
