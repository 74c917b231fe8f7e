"""Ordered map of a function over chunks of work: on every core, or on a Dask cluster.

joblib runs, bounded, what decodes images. A small job runs in this process: starting workers
would take longer than the work.
"""

import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.errors import DataError, ParamsError, ServiceError
from tasks.step import die_with_parent

if TYPE_CHECKING:  # every worker process imports this module
    from tasks.params import Settings
    from tasks.schema import Ingest

_SMALL_FILES, _SMALL_BYTES = 4000, 32 << 20
_AHEAD = 8  # jobs a worker that are handed out together
_IDLE_SECONDS = 60  # workers wait this long for the next call, and end
_CONNECT_SECONDS = 10

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_for(files: Iterable[str]) -> int:
    """How many processes to decode `files` with: one when others would start too late to help."""
    size = 0
    for count, file in enumerate(files, start=1):
        with suppress(OSError):
            size += os.stat(file).st_size
        if count > _SMALL_FILES or size > _SMALL_BYTES:
            return cores()
    return 1


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut `items` into runs of at most `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work(item)` for each item, in order, on every core: for numpy, which lets threads run."""
    from threadpoolctl import threadpool_limits

    # threads of the matrix library would take turns with ours
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:
        yield from pool.map(work, items)


def cluster_address(config: "Ingest", settings: "Settings") -> str | None:
    """The Dask scheduler that the params and the environment ask for; None: processes here.

    Raises ParamsError when the params ask for Dask and no address or no library is there.
    """
    if config.backend != "dask":
        return None
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise ParamsError(
            "ingest.backend is 'dask', but Dask is not installed; install visionloop[dask]"
        ) from None
    if settings.dask_scheduler is None:
        raise ParamsError(
            "ingest.backend is 'dask', but VISIONLOOP_DASK_SCHEDULER is not set; set it to the "
            "scheduler's address (tcp://HOST:8786), or ingest.backend to 'processes'"
        )
    return settings.dask_scheduler


def in_order(
    work: Callable[[Sequence[Item]], Result],
    jobs: Iterable[Sequence[Item]],
    workers: int,
    cluster: str | None = None,
) -> Iterator[Result]:
    """`work(job)` for each job, in order; `work` and its results must be picklable.

    With `cluster`, the address of a Dask scheduler, the jobs run there, else in `workers`
    processes; with one worker they run here. At most 16 jobs a worker are unfinished or not
    taken yet, so memory stays bounded however slow the taker is. Raises DataError when a worker
    is killed, and ServiceError when the cluster cannot be reached or has no worker.
    """
    if cluster is None and workers <= 1:
        yield from map(work, jobs)
        return
    with _on_cluster(cluster) if cluster else _on_cores(workers) as (backend, width):
        yield from _in_windows(work, jobs, width, backend)


def _in_windows(
    work: Callable[[Sequence[Item]], Result],
    jobs: Iterable[Sequence[Item]],
    width: int,
    backend: dict[str, Any],
) -> Iterator[Result]:
    """`in_order` by windows, the next of which is under way while one is taken.

    joblib hands out more work when results come in, not when they are taken: given all the work
    at once, it would let the results of a slow taker pile up.
    """
    from joblib import delayed

    remaining, under_way = iter(jobs), deque[Generator[Result | _Failure, None, None]]()
    with _parallel(width, backend) as one, _parallel(width, backend) as other:
        try:
            for parallel in cycle((one, other)):
                window = list(islice(remaining, _AHEAD * width))
                if window:
                    under_way.append(parallel(delayed(_attempt)(work, job) for job in window))
                if len(under_way) > 1 or not window:
                    yield from _taken(under_way)
                if not under_way:
                    break
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of work that is not used
                for results in under_way:
                    results.close()


def _parallel(width: int, backend: dict[str, Any]) -> Any:
    from joblib import Parallel, parallel_config

    with parallel_config(n_jobs=width, max_nbytes=None, **backend):  # no job is a large array
        return Parallel(return_as="generator", pre_dispatch="all", batch_size=1)


def _taken(under_way: "deque[Generator[Result | _Failure, None, None]]") -> Iterator[Result]:
    """The results of the first window, which leaves the queue when it is through."""
    for outcome in under_way[0] if under_way else ():
        if isinstance(outcome, _Failure):
            raise outcome.error
        yield outcome
    if under_way:
        under_way.popleft()


@dataclass(frozen=True)
class _Failure:
    """An error of the work, as a result: were it raised, joblib would kill its workers."""

    error: Exception


def _attempt(work: Callable[[Sequence[Item]], Result], job: Sequence[Item]) -> Result | _Failure:
    try:
        return work(job)
    except Exception as error:
        return _Failure(error)


@contextmanager
def _on_cores(workers: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Processes of joblib's own, which are kept from one window, and one call, to the next."""
    settings = {"initializer": _begin_worker, "idle_worker_timeout": _IDLE_SECONDS}
    hook, threading.excepthook = threading.excepthook, _pass_over_loky
    try:
        yield {"backend": "loky", **settings}, workers
    except BrokenProcessPool:
        raise DataError(
            "a worker process was killed, most likely for lack of memory; "
            "lower ingest.max_pixels or free memory, and run again"
        ) from None
    finally:
        threading.excepthook = hook


def _pass_over_loky(error: threading.ExceptHookArgs) -> None:
    """Loky's thread ends in a KeyError when work that waits is called off; it has no effect."""
    loky = error.thread is not None and error.thread.name == "ExecutorManagerThread"
    if not (loky and error.exc_type is KeyError):
        threading.__excepthook__(error)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    die_with_parent()


@contextmanager
def _on_cluster(address: str) -> Iterator[tuple[dict[str, Any], int]]:
    """The workers of a Dask cluster, which see the same files under the same names."""
    from distributed import Client, KilledWorker

    way_out = "start it, or set ingest.backend to 'processes'"
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ServiceError(f"no Dask scheduler at {address} ({error}); {way_out}") from None
    with client:
        width = sum(client.ncores().values())
        if not width:
            raise ServiceError(f"the Dask scheduler at {address} has no worker; {way_out}")
        try:
            yield {"backend": "dask", "client": client}, width
        except KilledWorker as error:
            raise DataError(f"workers of the Dask cluster were killed: {error}") from None
