"""Optimizer and learning-rate schedule from the train section."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from tasks.schema import Train


def make_optimizer(model: nn.Module, config: Train) -> Optimizer:
    """SGD with Nesterov momentum, or AdamW; biases and norms are not decayed.

    (Decay of scale-and-shift parameters only hurts: He et al. 2019, "Bag of tricks".)
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return AdamW(groups, config.lr, betas=(config.momentum, 0.999), fused=True)
    return SGD(groups, config.lr, config.momentum, nesterov=config.momentum > 0, fused=True)


def make_schedule(optimizer: Optimizer, config: Train, steps: int) -> OneCycleLR:
    """One cycle over all epochs of `steps` steps, up to `config.lr` (Smith & Topin 2018).

    The momentum is left as configured.
    """
    return OneCycleLR(
        optimizer, config.lr, epochs=config.epochs, steps_per_epoch=steps, cycle_momentum=False
    )
