"""One training run, epoch by epoch: its state, and how it is saved and taken up again."""

import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.training.checkpoint import State, fingerprint, load_checkpoint, save_checkpoint
from tasks.training.inference import predict
from tasks.training.losses import Loss, class_counts, training_loss, validation_weights
from tasks.training.models import ModelSpec
from tasks.training.optimisation import make_optimizer, make_schedule
from tasks.training.reading import read_ahead
from tasks.training.sampling import EpochOrder

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit

_EXPLODED = 1e3  # nats per image: no schedule brings that back
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave; `epoch` counts from 1, losses are in nats per image."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    lr: float


class Trainer:
    """The state of one training run; `history` tells how far it is."""

    def __init__(
        self,
        model: nn.Module,
        train: "ShardSplit",
        validation: "ShardSplit",
        spec: ModelSpec,
        config: Train,
        loss: Loss | None,
    ) -> None:
        # Here, not at the top: torchvision takes as long to import as torch itself, and
        # `predict` does without it.
        from tasks.training.augmentation import augmentation
        from tasks.training.mixing import mixing

        self.model, self.train, self.validation = model, train, validation
        self.spec, self.config = spec, config
        self.device = next(model.parameters()).device
        self.augment = augmentation(spec, config.augment.recipe)
        self.mix = mixing(config.augment.recipe, len(spec.classes))
        self.order = EpochOrder(train.labels, config.imbalance.sampling, train.weights)
        counts = class_counts(train.labels, len(spec.classes))
        self.loss = loss or training_loss(config.imbalance, config.label_smoothing, counts)
        self.class_weights = validation_weights(config.imbalance, counts)
        # Batches of batch_size or a little more: a last batch of one image would break
        # batch norm, and no image is left out.
        self.steps = max(1, len(self.order) // config.batch_size)
        self.optimizer = make_optimizer(model, config)
        self.schedule = make_schedule(self.optimizer, config, self.steps)
        self.history: list[Epoch] = []
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}
        arrays = [train.hashes, train.labels, validation.hashes, validation.labels]
        arrays += [] if train.weights is None else [train.weights]
        settings = [spec.model_dump(mode="json"), config.model_dump(mode="json")]
        self.fingerprint = fingerprint(model, settings, arrays)

    @property
    def finished(self) -> bool:
        """All epochs are done, or patience is at an end."""
        done = len(self.history)
        return done >= self.config.epochs or done - self.best_epoch >= self.config.patience

    def one_epoch(self) -> Epoch:
        """Train on the epoch's images, validate, and keep the weights if they are the best."""
        number = len(self.history) + 1
        torch.manual_seed(self.config.seed + 1_000_003 * number)
        started = time.perf_counter()
        train_loss = self._train()
        rate = len(self.order) / (time.perf_counter() - started)
        epoch = Epoch(number, train_loss, *self._validate(), float(self.schedule.get_last_lr()[0]))
        self._check(epoch)
        self.history.append(epoch)
        if self.best_epoch == 0 or epoch.validation_loss < self._best_loss:
            self.best_epoch = number
            state = self.model.state_dict()
            self.best_weights = {name: value.detach().clone() for name, value in state.items()}
        self._report(epoch, rate, time.perf_counter() - started)
        return epoch

    def resume(self, path: Path | None) -> None:
        """Take up the run's own checkpoint, if there is one."""
        state = load_checkpoint(path, self.fingerprint) if path else None
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best_epoch, self.best_weights = state["best_epoch"], state["best_weights"]
        log.info("went on from %s after epoch %d", path, len(self.history))

    def save(self, path: Path | None) -> None:
        """Replace the checkpoint."""
        if path is None:
            return
        state: State = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        }
        save_checkpoint(path, self.fingerprint, state)

    @property
    def _best_loss(self) -> float:
        return self.history[self.best_epoch - 1].validation_loss

    def _train(self) -> float:
        """One pass over the shuffled images; gives the mean loss."""
        self.model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        order = self.order.draw().tensor_split(self.steps)
        steps = [indices.numpy() for indices in order]
        for indices, images in zip(steps, read_ahead(self.train.images, steps), strict=True):
            inputs = self.augment(images.to(self.device))
            labels = torch.from_numpy(self.train.labels[indices]).to(self.device)
            inputs, targets = self.mix(inputs, labels)
            loss = self.loss(self.model(inputs), targets, inputs)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach() * len(indices)
        return float(total) / len(self.order)

    def _validate(self) -> tuple[float, float]:
        """Cross-entropy (with the remedy's class weights) and accuracy on validation images."""
        logits = torch.from_numpy(predict(self.model, self.validation.images, self.spec))
        labels = torch.from_numpy(np.array(self.validation.labels))
        accuracy = (logits.argmax(1) == labels).double().mean()
        loss = F.cross_entropy(logits.double(), labels, self.class_weights)
        return float(loss), float(accuracy)

    def _check(self, epoch: Epoch) -> None:
        losses = (epoch.train_loss, epoch.validation_loss)
        if all(math.isfinite(loss) for loss in losses) and epoch.train_loss < _EXPLODED:
            return
        raise TrainingError(
            f"training diverged in epoch {epoch.epoch}: train loss {losses[0]:.4g}, validation "
            f"loss {losses[1]:.4g} with train.lr {self.config.lr:g}; try "
            f"train.lr {self.config.lr / 10:g}, or a train.grad_clip below "
            f"{self.config.grad_clip:g}"
        )

    def _report(self, epoch: Epoch, rate: float, seconds: float) -> None:
        left = round(seconds * (self.config.epochs - epoch.epoch))
        log.info(
            "epoch %d/%d: train loss %.4f, validation loss %.4f, accuracy %.2f %%, "
            "%d images/s, %d:%02d left",
            epoch.epoch,
            self.config.epochs,
            epoch.train_loss,
            epoch.validation_loss,
            100 * epoch.validation_accuracy,
            rate,
            *divmod(left, 60),
        )
