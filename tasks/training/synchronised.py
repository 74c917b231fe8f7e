"""Batch norms over the whole batch, when several processes have a part of it each.

Ioffe & Szegedy 2015 normalise by the statistics of the batch; with those of each rank's own part
(as DistributedDataParallel leaves it) two processes would train another network than one.
PyTorch's SyncBatchNorm runs on GPUs only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tasks.training.distributed import size


class _Sum(torch.autograd.Function):
    """The sum over all ranks; so is its gradient, since every rank's loss counts."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm of float N×C×H×W with the mean and variance over the images of all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x; in evaluation by the running statistics, as nn.BatchNorm2d."""
        if not self.training:
            return super().forward(x)
        # Sums of differences from the running mean: of raw values a small variance would drown.
        shift = self.running_mean.clone()  # type: ignore[union-attr]
        centred = x - shift[:, None, None]
        count = torch.full((1,), x.numel() / x.shape[1], dtype=x.dtype)
        sums = [centred.sum((0, 2, 3)), centred.square().sum((0, 2, 3)), count]
        total: Tensor = _Sum.apply(torch.cat(sums))  # type: ignore[no-untyped-call]
        mean, square = (total[:-1] / total[-1]).chunk(2)
        variance = square - mean**2
        self._track(shift + mean.detach(), variance.detach(), total[-1].detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        factor = self.momentum or 1 / int(self.num_batches_tracked)  # type: ignore[arg-type]
        self.running_mean.lerp_(mean, factor)  # type: ignore[union-attr]
        self.running_var.lerp_(variance * count / (count - 1), factor)  # type: ignore[union-attr]


@contextmanager
def synchronised(model: nn.Module) -> Iterator[None]:
    """Batch norms of `model` take the statistics of all ranks' images for the time of the block.

    They share their parameters and statistics with the model's own, which are back after it.
    The model must be on its device already.
    """
    swapped = [
        (parent, name, norm)
        for parent in (model.modules() if size() > 1 else ())
        for name, norm in parent.named_children()
        if isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.track_running_stats
    ]
    for parent, name, norm in swapped:
        setattr(parent, name, _twin(norm))
    try:
        yield
    finally:
        for parent, name, norm in swapped:
            norm.train(getattr(parent, name).training)
            setattr(parent, name, norm)


def _twin(norm: nn.BatchNorm2d) -> nn.Module:
    kind = nn.SyncBatchNorm if norm.weight.is_cuda else CpuSyncBatchNorm
    twin = kind(norm.num_features, norm.eps, norm.momentum)
    twin.weight, twin.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        setattr(twin, name, buffer)
    return twin.train(norm.training)
