"""The training loop: shards in, the best weights out; seeded, resumable, on CPU or CUDA.

Every epoch draws its random numbers from the seed and the epoch's own number, so a run that
was killed and taken up from its checkpoint ends with the same weights, bit for bit on a CPU,
as one that was not.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.training.checkpoint import State, fingerprint, load_checkpoint, save_checkpoint
from tasks.training.models import ModelSpec, normalise
from tasks.training.optimisation import make_optimizer, make_schedule

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Floats = npt.NDArray[np.float32]
_EXPLODED = 1e3  # nats per image: no schedule brings that back
_PREDICT_BATCH = 256
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave; `epoch` counts from 1, losses are in nats per image."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    lr: float


@dataclass(frozen=True)
class FitResult:
    """The epoch whose weights the model now has, and all epochs in order."""

    best_epoch: int
    history: list[Epoch]

    @property
    def best(self) -> Epoch:
        """The epoch with the lowest validation loss."""
        return self.history[self.best_epoch - 1]


def fit(
    model: nn.Module,
    train: "ShardSplit",
    validation: "ShardSplit",
    spec: ModelSpec,
    config: Train,
    *,
    loss: Loss | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> FitResult:
    """Train until `config.epochs` or no better validation loss for `config.patience` epochs.

    The model ends with the weights of the lowest validation loss (cross-entropy without
    smoothing), in evaluation mode, on the CPU.

    Args:
        model: gives logits float N×C for normalised float N×3×S×S.
        train: the images to learn from.
        validation: the images that choose the best epoch.
        spec: size, mean and deviation of the inputs.
        config: epochs, optimisation and augmentation.
        loss: of (logits, labels, augmented normalised inputs); None is cross-entropy with
            `config.label_smoothing`.
        checkpoint: file that is replaced after each epoch; a run that finds its own there goes
            on from it.
        on_epoch: called after each epoch, on taking up a checkpoint for its epochs first.
            What it raises ends the training and passes through.

    Raises:
        TrainingError: a loss that is not finite or explodes, no images, no such device, or
            not enough memory on it.
        OSError: the checkpoint cannot be written; the one before it is kept.
    """
    device = choose_device(config.device)
    _check_images(train, validation)
    cpu_only: list[int] | None = [] if device.type == "cpu" else None
    with torch.random.fork_rng(cpu_only), _memory_advice(config.batch_size):
        run = _Run(model.to(device), train, validation, spec, config, loss)
        run.resume(checkpoint)
        for epoch in run.history:
            if on_epoch:
                on_epoch(epoch)
        while not run.finished:
            epoch = run.one_epoch()
            if on_epoch:
                on_epoch(epoch)
            run.save(checkpoint)
        model.load_state_dict(run.best_weights)
    model.cpu().eval()
    return FitResult(run.best_epoch, run.history)


def predict(model: nn.Module, images: npt.NDArray[np.uint8], spec: ModelSpec) -> Floats:
    """Logits of uint8 N×S×S×3 images, float32 N×C, in evaluation mode on the model's device."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), _PREDICT_BATCH):
            batch = torch.from_numpy(np.array(images[start : start + _PREDICT_BATCH]))
            logits.append(model(normalise(batch.to(device), spec)).float().cpu())
    model.train(was_training)
    return np.asarray(torch.cat(logits).numpy(), np.float32)


def choose_device(wanted: str) -> torch.device:
    """The device for "auto" (CUDA if there is one), "cpu" or "cuda"; raises TrainingError."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise TrainingError("train.device is cuda, but no CUDA device is available; set it to auto")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


class _Run:
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

        self.model, self.train, self.validation = model, train, validation
        self.spec, self.config = spec, config
        self.device = next(model.parameters()).device
        self.augment = augmentation(spec, config.augment)
        self.loss = loss or _cross_entropy(config.label_smoothing)
        # Batches of batch_size or a little more: a last batch of one image would break
        # batch norm, and no image is left out.
        self.steps = max(1, len(train) // config.batch_size)
        self.optimizer = make_optimizer(model, config)
        self.schedule = make_schedule(self.optimizer, config, self.steps)
        self.history: list[Epoch] = []
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}
        arrays = [train.hashes, train.labels, validation.hashes, validation.labels]
        settings = [spec.model_dump(mode="json"), config.model_dump(mode="json")]
        self.fingerprint = fingerprint(model, settings, arrays)

    @property
    def finished(self) -> bool:
        """All epochs are done, or patience is at an end."""
        done = len(self.history)
        return done >= self.config.epochs or done - self.best_epoch >= self.config.patience

    def one_epoch(self) -> Epoch:
        """Train on every image once, validate, and keep the weights if they are the best."""
        number = len(self.history) + 1
        torch.manual_seed(self.config.seed + 1_000_003 * number)
        started = time.perf_counter()
        train_loss = self._train()
        rate = len(self.train) / (time.perf_counter() - started)
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
        for indices in torch.randperm(len(self.train)).tensor_split(self.steps):
            inputs = self.augment(_batch(self.train.images, indices).to(self.device))
            labels = torch.from_numpy(self.train.labels[indices.numpy()]).to(self.device)
            loss = self.loss(self.model(inputs), labels, inputs)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach() * len(indices)
        return float(total) / len(self.train)

    def _validate(self) -> tuple[float, float]:
        """Cross-entropy and accuracy on the validation images."""
        logits = torch.from_numpy(predict(self.model, self.validation.images, self.spec))
        labels = torch.from_numpy(np.array(self.validation.labels))
        accuracy = (logits.argmax(1) == labels).double().mean()
        return float(F.cross_entropy(logits.double(), labels)), float(accuracy)

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


def _cross_entropy(smoothing: float) -> Loss:
    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    return loss


def _batch(images: npt.NDArray[np.uint8], indices: Tensor) -> Tensor:
    """The images of these indices, from memory (the page cache holds what was read once)."""
    return torch.from_numpy(images[indices.numpy()])


def _check_images(train: "ShardSplit", validation: "ShardSplit") -> None:
    for name, split, least in (("training", train, 2), ("validation", validation, 1)):
        if len(split) < least:
            raise TrainingError(
                f"{len(split)} {name} images are too few; add images, or change split in "
                "conf/params.yaml"
            )


@contextmanager
def _memory_advice(batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the device has too little memory for train.batch_size {batch_size}; try "
            f"{max(2, batch_size // 2)} ({error})"
        ) from None
