"""How many threads PyTorch uses on a CPU: one for a network that has no work for more."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# Multiply-accumulates of a batch. With half of it a second thread makes training a fifth faster
# on an idle machine, with twice as many by half; and wherever another process wants the cores,
# threads that wait for each other after every layer are several times slower than one.
SMALL = 100_000_000


def macs(model: nn.Module, size: int) -> int:
    """Multiply-accumulates of one image: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:  # with gradients: without, attention is fused
        model(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops()) // 2


@contextmanager
def suited_threads(model: nn.Module, size: int, batch: int) -> Iterator[None]:
    """Meanwhile one thread, where batches of `batch` images of this size are little work.

    The model is on the CPU, and stays as it is.
    """
    before, modes = torch.get_num_threads(), [(part, part.training) for part in model.modules()]
    model.eval()
    small = macs(model, size) * batch <= SMALL
    for part, training in modes:
        part.training = training
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
