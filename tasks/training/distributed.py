"""What the processes of one training share (see `tasks.training.launch`).

Every rank works on its own rows of each global batch, so that the batches, their order and the
random changes of the images are those of one process. What is summed over images (gradients,
losses, statistics of batch norms) is summed over all ranks; rank 0, the writer, alone writes.
In one process without a group every function here gives back what it is given.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tasks.errors import TrainingError

T = TypeVar("T")


def size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_writer() -> bool:
    """Whether this process writes checkpoints, files and the tracker's record."""
    return size() == 1 or dist.get_rank() == 0


def check_images(train: int, validation: int) -> None:
    """Raise TrainingError when there are not as many images of each kind as processes."""
    for name, count in (("training", train), ("validation", validation)):
        if count < size():
            raise TrainingError(
                f"{count} {name} images are too few for {size()} processes; lower train.devices"
            )


def own_rows(count: int) -> slice:
    """This rank's rows of `count`: as `Tensor.tensor_split` would, in the order of the ranks."""
    starts = _starts(count)
    rank = dist.get_rank() if size() > 1 else 0
    return slice(starts[rank], starts[rank + 1])


def gathered(rows: Tensor, count: int) -> Tensor:
    """The rows [count, ...] of all ranks, in order, from this rank's own; the same on all."""
    if size() == 1:
        return rows
    starts = _starts(count)
    most = starts[1]
    padded = torch.cat([rows, rows.new_zeros((most - len(rows), *rows.shape[1:]))]).contiguous()
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[: starts[i + 1] - starts[i]] for i, part in enumerate(parts)])


def share_of_mean(mean: Tensor, rows: int, count: int) -> Tensor:
    """What is differentiated for the mean over a step's `count` images, from that of `rows`.

    A rank has a part of a step's batches each, and gradients are averaged over the ranks.
    """
    return mean * (rows * size() / count)


def summed(value: Tensor) -> Tensor:
    """The sum over all ranks, in place; the same bits on all."""
    if size() > 1:
        dist.all_reduce(value)
    return value


def on_writer(work: Callable[[], T]) -> T:
    """What `work` gives on the writer, on every rank; an error there is raised on every rank."""
    if size() == 1:
        return work()
    outcome: list[tuple[T | None, Exception | None]] = [(None, None)]
    if is_writer():
        try:
            outcome = [(work(), None)]
        except Exception as error:
            outcome = [(None, error)]
    dist.broadcast_object_list(outcome, src=0)
    given, failure = outcome[0]
    if failure is not None:
        raise failure
    return given  # type: ignore[return-value]


def parallel(model: nn.Module) -> nn.Module:
    """The network to call in training: its gradients are the averages over all ranks."""
    if size() == 1:
        return model
    device = next(model.parameters()).device
    ids = [device.index] if device.type == "cuda" else None
    # Buffers are equal already: the statistics of batch norms are those of the whole batch.
    return DistributedDataParallel(model, device_ids=ids, forward_sync_buffers=False)


def synchronised(network: nn.Module, now: bool) -> AbstractContextManager[None]:
    """For a forward and backward pass: whether the ranks' gradients are averaged at its end.

    Where not, they add up on each rank until a pass that does.
    """
    if now or not isinstance(network, DistributedDataParallel):
        return nullcontext()
    return cast(AbstractContextManager[None], network.no_sync())


@contextmanager
def own_draws(step: int) -> Iterator[None]:
    """In the block the network's random numbers (dropout) differ by rank.

    After it the generator that all ranks share is where it was: they go on drawing alike.
    """
    if size() == 1:
        yield
        return
    shared, seed = torch.get_rng_state(), torch.initial_seed()
    torch.manual_seed((seed + 1_000_003 * (step * size() + dist.get_rank() + 1)) % 2**63)
    yield
    torch.set_rng_state(shared)


def _starts(count: int) -> list[int]:
    """Where each rank's rows begin, and the end."""
    each, more = divmod(count, size())
    return [rank * each + min(rank, more) for rank in range(size() + 1)]
