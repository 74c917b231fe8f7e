"""Data parallelism: one training in several processes, started by a step or by torchrun.

Every rank works on its own rows of each global batch, so that the batches, their order and the
random changes of the images are those of one process. What is summed over images (gradients,
losses, statistics of batch norms) is summed over all ranks; rank 0, the writer, alone writes.
In one process without a group every function here gives back what it is given.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from tasks.errors import TrainingError
from tasks.schema import Train

_RUN_ID = "visionloop-"  # of workers that a step started: the step holds the workspace's lock
_LOST = 2  # exit code of a rank whose peers have ended, and of all but the first that fail
T = TypeVar("T")
log = logging.getLogger(__name__)


def processes(config: Train) -> int:
    """How many processes `train.devices` asks for; raises TrainingError for too many GPUs."""
    gpus = torch.cuda.device_count() if config.device != "cpu" else 0
    if config.devices == "auto":
        return max(1, gpus)
    if gpus and config.devices > gpus:
        raise TrainingError(
            f"train.devices is {config.devices}, but this machine shows {gpus} GPUs; set it to "
            "auto, which takes all of them, or train.device to cpu"
        )
    return config.devices


def is_worker() -> bool:
    """Whether this process is one of several (or the only one) that torchrun started."""
    return dist.is_torchelastic_launched()


def run(main: Callable[[], None]) -> None:
    """`tasks.step.run_step`; of a training's processes one alone holds the workspace's lock."""
    from tasks.step import run_process, run_step  # its lock is not there on a bare GPU machine

    locked = os.environ.get("TORCHELASTIC_RUN_ID", "").startswith(_RUN_ID)
    first = not is_worker() or (os.environ["RANK"] == "0" and not locked)
    (run_step if first else run_process)(main)


def in_workers(module: str, config: Train) -> bool:
    """Run `python -m module` in as many workers as `config` asks for, if that is several.

    False: the work is to be done here. Raises TrainingError when a worker is killed, and
    SystemExit with a worker's own exit code when it has said what is wrong.
    """
    count = processes(config)
    if is_worker() or count == 1:
        return False
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    setup = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=_RUN_ID + uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    try:
        elastic_launch(setup, sys.executable)("-m", module)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        raise _failure(codes, count) from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
    return True


@contextmanager
def session(config: Train) -> Iterator[None]:
    """Join the other workers for the time of the block; nothing in a process of its own.

    The first rank that fails passes its error on, the others end silently.
    """
    if not is_worker():
        yield
        return
    cuda = torch.cuda.is_available() and config.device != "cpu"
    _take_device(cuda)
    store, rank, world = next(rendezvous("env://"))
    dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=world)
    if rank:
        logging.getLogger("tasks").setLevel(logging.WARNING)
    log.info("training in %d processes on %s", world, "GPUs" if cuda else "the CPU")
    try:
        if config.batch_size < world:
            raise TrainingError(
                f"train.batch_size {config.batch_size} is less than an image for each of {world} "
                "processes; raise it, or lower train.devices"
            )
        yield
    except BaseException as error:
        if _is_lost_peer(error):
            log.warning("process %d has lost the others: %s", rank + 1, str(error).splitlines()[0])
            raise SystemExit(_LOST) from None
        if not _first_to_fail(store):
            raise SystemExit(getattr(error, "exit_code", _LOST)) from None
        raise
    dist.destroy_process_group()


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


def _take_device(cuda: bool) -> None:
    """A GPU for each local rank; on the CPU its share of the cores."""
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if cuda and local >= torch.cuda.device_count():
        raise TrainingError(
            f"{here} processes need as many GPUs, this machine shows {torch.cuda.device_count()}"
        )
    if cuda:
        torch.cuda.set_device(local)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // here))


def _is_lost_peer(error: BaseException) -> bool:
    # Gloo's errors are plain RuntimeErrors that name its source files.
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


def _first_to_fail(store: Any) -> bool:
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:  # torchrun has ended already
        return False


def _failure(codes: dict[int, int], count: int) -> BaseException:
    """The error of a training whose ranks ended with these exit codes."""
    killed = {rank: -code for rank, code in codes.items() if code < 0 and -code != signal.SIGTERM}
    if not killed:
        return SystemExit(next(iter(codes.values())))
    rank, number = next(iter(killed.items()))
    return TrainingError(
        f"process {rank + 1} of {count} was ended by {signal.Signals(number).name}; run again to "
        "go on from the last checkpoint, with a smaller train.batch_size if memory ran out"
    )
