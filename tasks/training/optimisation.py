"""Optimizer and learning-rate schedule from the train section."""

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from tasks.schema import Train
from tasks.training.finetuning import parameter_groups


def make_optimizer(model: nn.Module, config: Train) -> Optimizer:
    """SGD with Nesterov momentum, or AdamW, over the groups of `finetuning.parameter_groups`."""
    groups = parameter_groups(model, config)
    if config.optimizer == "adamw":
        return AdamW(groups, config.lr, betas=(config.momentum, 0.999), fused=True)
    return SGD(groups, config.lr, config.momentum, nesterov=config.momentum > 0, fused=True)


class Schedule:
    """The learning rates of all parameter groups, from step to step and epoch to epoch."""

    def __init__(self, by_step: LRScheduler, plateau: ReduceLROnPlateau | None, warm: int) -> None:
        self._by_step, self._plateau, self._warm = by_step, plateau, warm

    def step(self) -> None:
        """A step was taken."""
        self._by_step.step()

    def end_epoch(self, validation_loss: float) -> None:
        """An epoch has ended; a plateau in the warm-up is none."""
        if self._plateau is not None and self._by_step.last_epoch >= self._warm:
            self._plateau.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """All there is to go on from."""
        plateau = self._plateau.state_dict() if self._plateau is not None else None
        return {"by_step": self._by_step.state_dict(), "plateau": plateau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._by_step.load_state_dict(state["by_step"])
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])


def make_schedule(optimizer: Optimizer, config: Train, steps: int) -> Schedule:
    """`config.schedule` over all epochs of `steps` steps, from the rates of the groups.

    one_cycle (Smith & Topin 2018) leaves the momentum as configured. The others rise linearly
    for the share `config.warmup` of all steps (Goyal et al. 2017), then: cosine falls to 0
    (Loshchilov & Hutter 2017), step is multiplied by `config.decay` at every one of
    `config.milestones`, plateau after `config.plateau_patience` epochs without a better
    validation loss, constant stays.
    """
    total = config.epochs * steps
    warm = round(config.warmup * total)
    if config.schedule == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        cycle = OneCycleLR(optimizer, rates, total, pct_start=config.warmup, cycle_momentum=False)
        return Schedule(cycle, None, warm)
    if config.schedule == "plateau":
        rise = _rise(optimizer, warm)
        patience = config.plateau_patience - 1  # torch acts on one epoch more
        return Schedule(rise, ReduceLROnPlateau(optimizer, "min", config.decay, patience), warm)
    if config.schedule == "constant":
        return Schedule(_rise(optimizer, warm), None, warm)
    after = _fall(optimizer, config, total, warm)
    if warm:
        after = SequentialLR(optimizer, [_rise(optimizer, warm), after], [warm])
    return Schedule(after, None, warm)


def _rise(optimizer: Optimizer, warm: int) -> LinearLR:
    """1/(warm + 1), 2/(warm + 1), ... of the rates, and from step `warm` the rates."""
    return LinearLR(optimizer, start_factor=1 / (warm + 1), total_iters=max(1, warm))


def _fall(optimizer: Optimizer, config: Train, total: int, warm: int) -> LRScheduler:
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, max(1, total - warm))
    milestones = [round(share * total) - warm for share in config.milestones]
    return MultiStepLR(optimizer, milestones, config.decay)
