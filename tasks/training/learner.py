"""One optimizer step: a network with its optimizer, schedule, precision and averaged weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from tasks.schema import Train
from tasks.training import distributed
from tasks.training.averaging import WeightAverage
from tasks.training.losses import Loss
from tasks.training.optimisation import make_optimizer, make_schedule
from tasks.training.precision import Precision, compiled

Batch = tuple[Tensor, Tensor]  # inputs, normalised float n×3×S×S; targets (see losses)


class Learner:
    """What changes when a network learns.

    Args:
        model: the network, on its device.
        config: the train section.
        steps: optimizer steps of an epoch.
        loss: of (logits, targets, inputs), the mean over the images.
    """

    def __init__(self, model: nn.Module, config: Train, steps: int, loss: Loss) -> None:
        self.model, self.config = model, config
        self.network_alone = compiled(model) if config.compile else model
        self.network = distributed.parallel(self.network_alone)
        self.loss = loss
        self.optimizer = make_optimizer(model, config)
        self.schedule = make_schedule(self.optimizer, config, steps)
        self.precision = Precision(config.precision, next(model.parameters()).device)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self.rate = 1.0  # of the schedule's rates, lower after a divergence

    def begin_epoch(self) -> None:
        """Prepare for what takes gradients in the epoch: freed stages, too, among processes."""
        if self.config.finetune.frozen:
            self.network = distributed.parallel(self.network_alone)

    @property
    def result(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.average.module if self.average is not None else self.model

    @property
    def lr(self) -> float:
        """The highest learning rate of the parameter groups for the next step."""
        return self.rate * float(max(group["lr"] for group in self.optimizer.param_groups))

    def update(
        self, batches: Iterable[Batch], parts: int, images: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """One step on the mean loss over the `images` images of all `parts` batches, of all ranks.

        `step` is its number in the epoch: what the network draws (dropout) depends on it.
        Gives the loss summed over the images (float64) and the gradient norm before clipping.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64, device=self.precision.device)
        for number, (inputs, targets) in enumerate(batches):
            draws = distributed.own_draws(step * self.config.accumulate + number)
            with distributed.synchronised(self.network, now=number == parts - 1):
                with record_function("forward"), draws, self.precision.autocast():
                    loss = self.loss(self.network(inputs).float(), targets, inputs)
                with record_function("backward"):
                    self.precision.backward(distributed.share_of_mean(loss, len(inputs), images))
            total += loss.detach() * len(inputs)
        distributed.summed(total)
        with record_function("optimizer"), self._lowered():
            weights = self.model.parameters()
            norm = self.precision.step(self.optimizer, weights, self.config.grad_clip)
        self.schedule.step()
        if self.average is not None:
            with record_function("average"):
                self.average.update(self.model)
        return total, norm.detach()

    def state_dict(self) -> dict[str, Any]:
        """All that learning changes; the tensors are the learner's own."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "rate": self.rate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.precision.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.rate = state["rate"]

    @contextmanager
    def _lowered(self) -> Iterator[None]:
        """The parameter groups' rates times `rate`: schedulers go on from what they set."""
        groups = self.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= self.rate
        yield
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
