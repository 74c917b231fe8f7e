"""Which learning rates a training can take.

Smith 2017, "Cyclical learning rates for training neural networks": the rate grows step by step
while the loss is watched. Gives range.csv and range.html (a plot). No model is written.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tasks.errors import TrainingError
from tasks.files import atomic_write, write_text
from tasks.schema import Train
from tasks.training.epoch_batches import Step
from tasks.training.health import Diverged, StepHealth, Tally
from tasks.training.trainer import Trainer

TARGET = Path("data/lr_range")
CSV, PAGE = "range.csv", "range.html"
_LOW, _HIGH, _STEPS = 1e-5, 10.0, 150
_SMOOTHING = 0.9  # of the loss, exponential
_LEAST = 10  # steps before anything can be said
_LOST = 4.0  # times the lowest smoothed loss: the rate is too high


@dataclass(frozen=True)
class RangeTest:
    """The rates tried in order, and the smoothed loss after each (nats per image)."""

    rates: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest: one to train with, all the way."""
        fall = self.losses[: max(2, self.losses.argmin() + 1)]
        return float(self.rates[np.gradient(fall, np.log(self.rates[: len(fall)])).argmin()])

    @property
    def highest(self) -> float:
        """A third of the rate of the lowest loss: the top of a one-cycle schedule."""
        return float(self.rates[self.losses.argmin()] / 3)


def range_test(trainer: Trainer) -> RangeTest:
    """Train up to `_STEPS` steps at growing rates, over as many epochs as it takes.

    `trainer` has the config that `for_range_test` gives. Every group of parameters keeps its
    proportion to `train.lr`. Ends early when the loss is lost; TrainingError when that is at once.
    """
    groups = trainer.learner.optimizer.param_groups
    shares = [group["lr"] / trainer.config.lr for group in groups]
    rates, losses, sums = list[float](), list[float](), 0.0
    seen: list[StepHealth] = []
    trainer.on_step = seen.append
    tried = np.geomspace(_LOW, _HIGH, _STEPS)
    for rate, (batches, images) in zip(tried, _steps(trainer), strict=False):
        for group, share in zip(groups, shares, strict=True):
            group["lr"] = float(rate) * share
        try:
            trainer.step(batches, images)
        except Diverged:
            break
        sums = _SMOOTHING * sums + (1 - _SMOOTHING) * seen[-1].loss
        rates.append(float(rate))
        losses.append(sums / (1 - _SMOOTHING ** len(rates)))
        if losses[-1] > _LOST * min(losses):
            break
    if len(rates) < _LEAST:
        raise TrainingError(
            f"the loss is lost after {len(rates)} steps, at a learning rate of "
            f"{tried[len(rates)]:.2g}; something else than the rate is wrong: look at the images "
            "and labels"
        )
    return RangeTest(np.array(rates), np.array(losses))


def for_range_test(config: Train) -> Train:
    """The train section with a rate that stays as it is set, and every step's loss recorded."""
    changes = {"schedule": "constant", "warmup": 0.0, "log_steps": 1, "on_divergence": "stop"}
    return config.model_copy(update=changes)


def write(result: RangeTest, folder: Path) -> None:
    """Write the table and the plot (with plotly.js inside, readable without a network)."""
    from plotly.graph_objects import Figure, Scatter  # half a second

    with atomic_write(folder / CSV, "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["lr", "loss"])
        table.writerows(zip(result.rates, result.losses, strict=True))
    figure = Figure(Scatter(x=result.rates, y=result.losses, mode="lines"))
    figure.update_xaxes(type="log", title="learning rate")
    figure.update_yaxes(title="loss, smoothed (nats per image)")
    for rate, text, dash, side in (
        (result.steepest, "falls fastest", "dot", "right"),
        (result.highest, "a third of the lowest's", "dash", "left"),
    ):
        figure.add_vline(rate, line_dash=dash)
        # A mark of add_vline would stand at 10^rate, and both beside each other.
        figure.add_annotation(
            x=math.log10(rate), y=1, yref="paper", text=text, xanchor=side, showarrow=False
        )
    write_text(folder / PAGE, figure.to_html(include_plotlyjs=True))


def _steps(trainer: Trainer) -> Iterator[tuple[Step, Iterator[Tensor]]]:
    for number in count(1):
        trainer.epoch = Tally.empty(trainer.device)
        yield from trainer.order(number)
