"""Whether a training run is well: what it measures of itself, and when it has diverged."""

import logging
import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.errors import TrainingError
from tasks.schema import Train

Rows = npt.NDArray[np.int64]
_EXPLODED = 1e3  # nats per image: no schedule brings that back
_LOST_SCALE = 1e-6  # of fp16's losses: every step overflowed for long
_NAMED = 3  # images of a batch
log = logging.getLogger(__name__)


class Diverged(TrainingError):
    """A loss or gradient is not finite, or has exploded."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave; `epoch` counts from 1, losses are in nats per image.

    Epochs are equal when the run is, however fast the machine was.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_macro_f1: float
    lr: float  # after the last step
    gradient_norm: float  # mean over the steps, before clipping
    images_per_second: float = field(compare=False)  # in training
    memory_mb: float = field(compare=False)  # peak: of the device, or of the process on a CPU
    seconds: float = field(default=0.0, compare=False)  # with validation
    joules: float | None = field(default=None, compare=False)  # where the machine counts them


@dataclass(frozen=True)
class StepHealth:
    """Means over the last `train.log_steps` steps; `step` counts from 1 over all epochs."""

    step: int
    loss: float  # nats per image
    gradient_norm: float  # before clipping
    lr: float  # at `step`
    images_per_second: float
    memory_mb: float  # peak: of the device, or of the process on a CPU


@dataclass
class Tally:
    """Sums over steps: of the loss over images, and of the gradient norm (float64 scalars)."""

    loss: Tensor
    norm: Tensor
    images: int = 0
    steps: int = 0
    _before: int = 0  # of the images, those of a process that was cut off
    _since: float = field(default_factory=time.perf_counter)

    @classmethod
    def empty(cls, device: torch.device) -> Self:
        """Nothing yet."""
        return cls(*torch.zeros(2, dtype=torch.float64, device=device))

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> Self:
        """What `state` of another gave."""
        loss, norm = (state[name].to(device) for name in ("loss", "norm"))
        return cls(loss, norm, state["images"], state["steps"], state["images"])

    def state(self) -> dict[str, Any]:
        """The sums."""
        return {name: getattr(self, name) for name in ("loss", "norm", "images", "steps")}

    def add(self, loss: Tensor, norm: Tensor, images: int) -> None:
        """One step more. (fp16 leaves steps of infinite gradients out: they count as 0.)"""
        self.loss = self.loss + loss
        self.norm = self.norm + torch.nan_to_num(norm.double(), 0.0, 0.0)
        self.images += images
        self.steps += 1

    def means(self) -> tuple[float, float]:
        """The loss per image, and the gradient norm per step."""
        return float(self.loss) / self.images, float(self.norm) / self.steps

    def images_per_second(self) -> float:
        """Since this process began to count."""
        return (self.images - self._before) / (time.perf_counter() - self._since)


class Watch:
    """Looks at every step's loss and gradient norm, and stops what has diverged.

    Reading a number from a GPU waits for it, so there the steps are looked at together, every
    `train.log_steps`; the message names the step all the same.
    """

    def __init__(self, config: Train, paths: Sequence[str], device: torch.device) -> None:
        self._config, self._paths = config, paths
        self._every = 1 if device.type == "cpu" else config.log_steps
        self._seen: list[tuple[str, Tensor, Tensor, float, list[Rows]]] = []

    def see(self, step: str, loss: Tensor, norm: Tensor, lr: float, rows: list[Rows]) -> None:
        """One step: its mean loss, gradient norm, learning rate and the rows of its batches."""
        self._seen.append((step, loss, norm, lr, rows))
        if len(self._seen) >= self._every:
            self.check()

    def check(self) -> None:
        """Raise Diverged for the first of the steps seen that has."""
        seen, self._seen = self._seen, []
        losses = torch.stack([loss for _, loss, *_ in seen]).tolist() if seen else []
        norms = torch.stack([norm for _, _, norm, *_ in seen]).tolist() if seen else []
        for (step, _, _, lr, rows), loss, norm in zip(seen, losses, norms, strict=True):
            if self._bad(loss, norm):
                at = f"{step}: loss {loss:.4g}, gradient norm {norm:.4g}, learning rate {lr:.4g}"
                raise Diverged(f"training diverged in {at}{self._named(rows)}; {self.advice()}")

    def forget(self) -> None:
        """Drop the steps that were not looked at."""
        self._seen = []

    def check_epoch(self, number: int, validation_loss: float) -> None:
        """Raise Diverged when the epoch's validation loss is not finite."""
        if not math.isfinite(validation_loss):
            raise Diverged(
                f"training diverged in epoch {number}: validation loss {validation_loss:.4g} "
                f"with train.lr {self._config.lr:g}; {self.advice()}"
            )

    def check_scale(self, step: str, scale: float) -> None:
        """Raise Diverged when fp16 finds no scale at which gradients are finite."""
        if self._config.precision == "fp16" and scale < _LOST_SCALE:
            raise Diverged(
                f"training diverged in {step}: its fp16 gradients are not finite even with the "
                f"loss scaled by {scale:.1g}; {self.advice()}"
            )

    def advice(self) -> str:
        """What to try."""
        config = self._config
        tries = [
            f"train.lr {config.lr / 10:g} instead of train.lr {config.lr:g}",
            f"a train.grad_clip below {config.grad_clip:g}",
        ]
        if config.precision == "fp16":
            tries.append("train.precision bf16")
        if config.on_divergence == "stop":
            tries.append("train.on_divergence step_back")
        return f"try {', or '.join(tries)}"

    def _bad(self, loss: float, norm: float) -> bool:
        overflow = self._config.precision == "fp16"  # such a step was left out
        return not (loss < _EXPLODED and (overflow or math.isfinite(norm)))

    def _named(self, rows: list[Rows]) -> str:
        images = np.concatenate(rows)
        names = ", ".join(self._paths[row] for row in images[:_NAMED] if row < len(self._paths))
        return f"; its {len(images)} images begin with {names}" if names else ""


def peak_memory_mb(device: torch.device) -> float:
    """The most memory taken so far, in MB: on the CUDA device, or by this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def report(epoch: Epoch, epochs: int) -> None:
    """Log one line on an epoch of `epochs`."""
    log.info(
        "epoch %d/%d: train loss %.4f, validation loss %.4f, accuracy %.2f %%, "
        "%d images/s, %d:%02d left",
        epoch.epoch,
        epochs,
        epoch.train_loss,
        epoch.validation_loss,
        100 * epoch.validation_accuracy,
        epoch.images_per_second,
        *divmod(round(epoch.seconds * (epochs - epoch.epoch)), 60),
    )
