"""Where the time of a training step goes, here: some steps under torch's profiler.

Gives trace.json (for chrome://tracing or Perfetto) and table.txt. No model is written.
"""

import time
from itertools import islice
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tasks.errors import TrainingError
from tasks.files import write_directory, write_text
from tasks.training.trainer import Trainer

TARGET = Path("data/profile")
TRACE, TABLE = "trace.json", "table.txt"
PHASES = ("read", "augment", "forward", "backward", "optimizer", "average")
_WARM, _STEPS = 5, 20
_ROWS = 25  # operators in the table


def profile_steps(trainer: Trainer, target: Path) -> dict[str, float]:
    """Train `_WARM` steps and profile up to `_STEPS`; gives each phase's share of their time.

    The phases are PHASES, those that took place, and `other`.
    """
    if trainer.batches.steps < _WARM + 2:
        raise TrainingError(
            f"{trainer.batches.steps} steps an epoch are too few to profile; lower train.batch_size"
        )
    steps = trainer.order(1)
    for batches, images in islice(steps, _WARM):
        trainer.step(batches, images)
    activities = [ProfilerActivity.CPU]
    if trainer.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as measured:
        started = time.perf_counter()
        for batches, images in islice(steps, _STEPS):
            trainer.step(batches, images)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        seconds = time.perf_counter() - started
    shares = _shares(measured, seconds)
    write_directory(target, lambda folder: _write(folder, measured, shares))
    return shares


def _shares(measured: profile, seconds: float) -> dict[str, float]:
    events = {event.key: event.cpu_time_total / 1e6 for event in measured.key_averages()}
    shares = {name: events[name] / seconds for name in PHASES if name in events}
    return {**shares, "other": max(0.0, 1 - sum(shares.values()))}


def _write(folder: Path, measured: profile, shares: dict[str, float]) -> None:
    measured.export_chrome_trace(str(folder / TRACE))
    phases = "".join(f"{name:<12}{share:>7.1%}\n" for name, share in shares.items())
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    operators = measured.key_averages().table(sort_by=order, row_limit=_ROWS)
    write_text(folder / TABLE, f"Share of a step (of the CPU's time)\n{phases}\n{operators}\n")
