"""The largest batch (a power of two) that fits, and how fast each one is.

Real steps of the training at hand, forward, backward and optimizer, at batches that double until
one does not fit: memory runs out (on a GPU), or would (on a CPU, where to try it could have the
system end the process). The fastest batch is often far smaller than the largest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import psutil
import torch

from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.training.health import peak_memory_mb
from tasks.training.memory import memory_advice
from tasks.training.rehearsal import Rehearsal
from tasks.training.trainer import Trainer

FIRST = 8
_SECONDS, _STEPS = 2.0, 3  # of measuring a batch, after a first step: whichever is reached first


@dataclass(frozen=True)
class BatchSize:
    """What a batch of so many images takes; `reason` says why it does not fit."""

    images: int
    images_per_second: float = 0.0
    memory_mb: float = 0.0  # peak: of the device, or of this process on a CPU
    reason: str | None = None


def batch_sizes(config: Train, begin: Rehearsal) -> Iterator[BatchSize]:
    """Each power of two from 8 that fits, then, if one does not, that one with the reason.

    No batch is larger than the training split. Raises TrainingError when it has under 8 images.
    """
    size, before = FIRST, 0.0
    while True:
        trainer = begin(config.model_copy(update={"batch_size": size, "accumulate": 1}))
        if trainer.batches.shown < size:
            if size == FIRST:
                raise TrainingError(f"the training split has under {FIRST} images; add images")
            return
        try:
            with memory_advice(size):
                rate = _rate(trainer)
        except TrainingError as error:
            yield BatchSize(size, reason=str(error))
            return
        peak = peak_memory_mb(trainer.device)
        yield BatchSize(size, rate, peak)
        grown, before = peak - before if before else 0.0, peak
        size *= 2
        missing = _missing_mb(trainer.device, peak + 2 * grown)
        if missing > 0:
            wanted = f"it would take some {peak + 2 * grown:,.0f} MB"
            yield BatchSize(size, reason=f"{wanted}, {missing:,.0f} MB more than is free")
            return


def _rate(trainer: Trainer) -> float:
    """Images per second over a few steps after the first one."""
    steps = trainer.order(1)
    times = []
    for batches, images in islice(steps, 1 + _STEPS):
        started = perf_counter()
        trainer.step(batches, images)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        times.append((perf_counter() - started) / sum(len(rows) for rows in batches))
        if len(times) > 1 and sum(times[1:]) * trainer.config.batch_size > _SECONDS:
            break
    later = times[1:] or times  # a split of one batch has the first step alone
    return len(later) / sum(later)


def _missing_mb(device: torch.device, wanted: float) -> float:
    """By how much `wanted` MB of this process are more than a CPU's free memory; 0 on a GPU."""
    if device.type == "cuda":
        return 0.0
    own = psutil.Process().memory_info().rss
    free = psutil.virtual_memory().available
    return max(0.0, wanted - (own + free) / 1e6)
