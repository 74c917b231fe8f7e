"""What a training run has come to: its epochs, the weights of the best, and its steps back."""

from dataclasses import asdict

from torch import Tensor, nn

from tasks.schema import Train
from tasks.training.checkpoint import State
from tasks.training.health import Epoch
from tasks.training.keeping import better


class History:
    """The epochs done, from 1; `best_epoch` is 0 before the first, and `best_weights` empty.

    `step_backs` has the diagnosis of each divergence that the run went back from.
    """

    def __init__(self, config: Train) -> None:
        self.config = config
        self.epochs: list[Epoch] = []
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}
        self.step_backs: list[str] = []

    @property
    def finished(self) -> bool:
        """All epochs are done, or patience is at an end."""
        done = len(self.epochs)
        return done >= self.config.epochs or done - self.best_epoch >= self.config.patience

    def add(self, epoch: Epoch, model: nn.Module) -> None:
        """Count the epoch, and copy the weights of `model` if they are the best."""
        self.epochs.append(epoch)
        best = self.epochs[self.best_epoch - 1] if self.best_epoch else None
        if best is None or better(epoch, best, self.config):
            self.best_epoch = epoch.epoch
            state = model.state_dict()
            self.best_weights = {name: value.detach().clone() for name, value in state.items()}

    def state(self) -> State:
        """For a checkpoint."""
        return {
            "history": [asdict(epoch) for epoch in self.epochs],
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "step_backs": self.step_backs,
        }

    def load(self, state: State) -> None:
        """Take up what `state` of another gave."""
        self.epochs = [Epoch(**epoch) for epoch in state["history"]]
        self.best_epoch, self.best_weights = state["best_epoch"], state["best_weights"]
        self.step_backs = state["step_backs"]
