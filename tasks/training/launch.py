"""The processes of one training: how many, started by a step or by torchrun, and how they end.

`in_workers` starts them with torchrun's own launcher, `session` is what each does its work in. What
they share meanwhile is in `tasks.training.distributed`.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from tasks.errors import TrainingError
from tasks.schema import Train
from tasks.step import OWN_WORKERS

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_LOST = 2  # exit code of a rank whose peers have ended, and of all but the first that fail
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
        run_id=OWN_WORKERS + uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    handlers = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        elastic_launch(setup, sys.executable)("-m", module)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        raise _failure(codes, count) from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
    finally:
        for number, handler in handlers.items():  # the launcher leaves its own
            signal.signal(number, handler)
    return True


@contextmanager
def session(config: Train) -> Iterator[None]:
    """Join the other workers for the time of the block; nothing in a process of its own.

    The first rank that fails passes its error on, the others end silently.
    """
    if not is_worker():
        yield
        return
    store, rank, world = next(rendezvous("env://"))
    try:
        _join(store, rank, world, config)
        yield
    except BaseException as error:
        if _is_lost_peer(error):
            log.warning("process %d has lost the others: %s", rank + 1, str(error).splitlines()[0])
            raise SystemExit(_LOST) from None
        if not _first_to_fail(store):
            raise SystemExit(getattr(error, "exit_code", _LOST)) from None
        raise
    dist.destroy_process_group()


def _join(store: Any, rank: int, world: int, config: Train) -> None:
    cuda = torch.cuda.is_available() and config.device != "cpu"
    _take_device(cuda)
    dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=world)
    if rank:
        logging.getLogger("tasks").setLevel(logging.WARNING)
    log.info("training in %d processes on %s", world, "GPUs" if cuda else "the CPU")
    if config.batch_size < world:
        raise TrainingError(
            f"train.batch_size {config.batch_size} is less than an image for each of {world} "
            "processes; raise it, or lower train.devices"
        )


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
