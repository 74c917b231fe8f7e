"""Optimizer and learning-rate schedule from the train section."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from tasks.schema import Train
from tasks.training.finetuning import parameter_groups


def make_optimizer(model: nn.Module, config: Train) -> Optimizer:
    """SGD with Nesterov momentum, or AdamW, over the groups of `finetuning.parameter_groups`."""
    groups = parameter_groups(model, config)
    if config.optimizer == "adamw":
        return AdamW(groups, config.lr, betas=(config.momentum, 0.999), fused=True)
    return SGD(groups, config.lr, config.momentum, nesterov=config.momentum > 0, fused=True)


def make_schedule(optimizer: Optimizer, config: Train, steps: int) -> OneCycleLR:
    """One cycle over all epochs of `steps` steps, each group up to its own rate.

    (Smith & Topin 2018.) The momentum is left as configured.
    """
    highest = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer, highest, epochs=config.epochs, steps_per_epoch=steps, cycle_momentum=False
    )
