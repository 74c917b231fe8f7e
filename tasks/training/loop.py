"""The training loop: shards in, the best weights out; seeded, resumable, on CPU or CUDA.

Every epoch draws its random numbers from the seed and the epoch's own number, and a checkpoint
within an epoch keeps how far they are, so a run that was killed and taken up ends with the same
weights, bit for bit on a CPU, as one that was not.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from tasks.errors import TrainingError
from tasks.progress import Progress
from tasks.schema import Train
from tasks.training import distributed
from tasks.training.health import Epoch, StepHealth
from tasks.training.inference import predict
from tasks.training.losses import Loss
from tasks.training.memory import memory_advice
from tasks.training.models import ModelSpec
from tasks.training.precision import compile_advice
from tasks.training.synchronised import synchronised
from tasks.training.threads import suited_threads
from tasks.training.trainer import Trainer

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit

__all__ = ["Epoch", "FitResult", "Loss", "StepHealth", "choose_device", "fit", "predict"]

_REPORT_SECONDS = 60.0  # where there is no terminal; every epoch has a line of its own


@dataclass(frozen=True)
class FitResult:
    """The epoch whose weights the model now has, all epochs in order, and the divergences."""

    best_epoch: int
    history: list[Epoch]
    step_backs: list[str] = field(default_factory=list)  # each with its diagnosis

    @property
    def best(self) -> Epoch:
        """The epoch whose weights are kept."""
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
    on_step: Callable[[StepHealth], None] | None = None,
) -> FitResult:
    """Train until `config.epochs` or no better epoch for `config.patience` epochs.

    The model ends with the weights of the best, in evaluation mode, on the CPU: that of the lowest
    validation loss (cross-entropy without smoothing, the classes weighted as `config.imbalance`
    asks), or of the highest macro-F1, as `config.keep_by` says.

    Args:
        model: gives logits float N×C for normalised float N×3×S×S.
        train: the images to learn from.
        validation: the images that choose the best epoch.
        spec: size, mean and deviation of the inputs.
        config: epochs, optimisation and augmentation.
        loss: see tasks.training.losses; None is what `config` asks for.
        checkpoint: file that is replaced every `config.checkpoint_seconds` and after epochs; a
            run that finds its own there goes on from it.
        on_epoch: called after each epoch, on taking up a checkpoint for its epochs first.
            What it raises ends the training and passes through.
        on_step: called every `config.log_steps` steps; on taking up a checkpoint, again for
            those after it.

    Raises:
        TrainingError: a loss that is not finite or explodes, no images, no such device, not
            enough memory on it, or it cannot compile the network.
        OSError: the checkpoint cannot be written; the one before it is kept.
    """
    device = choose_device(config.device)
    _check_images(train, validation)
    distributed.check_images(len(train), len(validation))
    cpu_only: list[int] | None = [] if device.type == "cpu" else None
    model.to(device)
    on_cpu = device.type == "cpu"
    with (
        suited_threads(model, spec.size, config.batch_size) if on_cpu else nullcontext(),
        torch.random.fork_rng(cpu_only),
        memory_advice(config.batch_size),
        _compiling(config),
        synchronised(model),
    ):
        run = Trainer(model, train, validation, spec, config, loss, checkpoint)
        run.resume()
        run.on_step = on_step
        history = run.history
        for epoch in history.epochs:
            if on_epoch:
                on_epoch(epoch)
        with _progress(run) as progress:
            run.on_images = progress.add
            while not history.finished:
                epoch = run.one_epoch()
                if on_epoch:
                    on_epoch(epoch)
                run.save()
        model.load_state_dict(history.best_weights)
    model.cpu().eval()
    return FitResult(history.best_epoch, history.epochs, history.step_backs)


def choose_device(wanted: str) -> torch.device:
    """The device for "auto" (CUDA if there is one), "cpu" or "cuda"; raises TrainingError."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise TrainingError("train.device is cuda, but no CUDA device is available; set it to auto")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def _check_images(train: "ShardSplit", validation: "ShardSplit") -> None:
    for name, split, least in (("training", train, 2), ("validation", validation, 1)):
        if len(split) < least:
            raise TrainingError(
                f"{len(split)} {name} images are too few; add images, or change split in "
                "conf/params.yaml"
            )


def _compiling(config: Train) -> AbstractContextManager[None]:
    return compile_advice() if config.compile else nullcontext()


def _progress(run: Trainer) -> Progress:
    total = run.config.epochs * run.batches.shown
    return Progress("trained", total, done=run.images_done, seconds=_REPORT_SECONDS)
