"""A running average of the weights, which generalises better than the last of them.

Polyak & Juditsky 1992; as an exponential moving average in Tarvainen & Valpola 2017, "Mean
teachers are better role models".
"""

import copy
from typing import Any

import torch
from torch import nn

_HEAD_START = 10  # updates: the first weights, which know nothing, are forgotten fast


class WeightAverage:
    """A copy of a network (`module`) that follows it; batch norms' statistics too.

    Update t weighs the average by min(`decay`, (1 + t) / (10 + t)), so that a short run does not
    end with what it started from.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the weights of `model`; whole numbers (counts) are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (_HEAD_START + self.updates))
        own, new = self.module.state_dict(), model.state_dict()
        real = [name for name, value in own.items() if value.is_floating_point()]
        torch._foreach_lerp_([own[n] for n in real], [new[n] for n in real], 1 - decay)
        whole = [name for name in own if name not in set(real)]
        if whole:  # none in a network without batch norms
            torch._foreach_copy_([own[n] for n in whole], [new[n] for n in whole])

    def state_dict(self) -> dict[str, Any]:
        """The average and how many updates it has seen."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]
