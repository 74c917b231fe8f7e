"""Work in processes and on a cluster: in order, bounded, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tasks.data.ingest import ingest
from tasks.data.parallel import _AHEAD, cluster_address, in_order
from tasks.data.sources.folders import find_files
from tasks.data.tables import write_table
from tasks.errors import DataError, ParamsError, ServiceError
from tasks.params import Settings, load_params

MAX_PIXELS = 10_000
PARAMS = Path(__file__).parents[2] / "conf/params.yaml"


def total(job: Sequence[int]) -> tuple[int, int]:
    time.sleep(0.05 if job[0] % 7 == 0 else 0)  # the first to end are not the first in order
    return sum(job), os.getpid()


def fail_at_50(job: Sequence[int]) -> int:
    if 50 in job:
        raise DataError("fifty")
    return sum(job)


def die_at_50(job: Sequence[int]) -> int:
    if 50 in job:
        os.kill(os.getpid(), signal.SIGKILL)
    return sum(job)


def jobs(count: int = 100) -> list[list[int]]:
    return [[n, n + 1] for n in range(count)]


def test_results_come_in_order_from_several_processes() -> None:
    results = list(in_order(total, jobs(), workers=2))
    assert [sum_ for sum_, _ in results] == [2 * n + 1 for n in range(100)]
    processes = {process for _, process in results}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_one_worker_is_this_process() -> None:
    assert {process for _, process in in_order(total, jobs(3), workers=1)} == {os.getpid()}


def test_a_slow_taker_holds_up_the_work() -> None:
    """Or else a million results would pile up before a full disk."""
    taken = 0

    def counted() -> Iterator[Sequence[int]]:
        nonlocal taken
        for job in jobs(1000):
            taken += 1
            yield job

    results = in_order(total, counted(), workers=2)
    next(results)
    time.sleep(1)
    assert taken <= 2 * 2 * _AHEAD
    results.close()  # type: ignore[attr-defined]


def test_an_error_of_the_work_is_raised_and_the_next_call_works() -> None:
    with pytest.raises(DataError, match="fifty"):
        list(in_order(fail_at_50, jobs(), workers=2))
    assert len(list(in_order(total, jobs(), workers=2))) == 100


def test_a_killed_worker_is_said_in_words_and_the_next_call_works() -> None:
    with pytest.raises(DataError, match="a worker process was killed"):
        list(in_order(die_at_50, jobs(), workers=2))
    assert len(list(in_order(total, jobs(), workers=2))) == 100


ENDLESS = """
import itertools, os, time
from tasks.data.parallel import in_order
def work(job):
    time.sleep(0.05)
    return os.getpid()
if __name__ == "__main__":
    for process in in_order(work, ([n] for n in itertools.count()), 2):
        print(process, flush=True)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        workers = {int(parent.stdout.readline()) for _ in range(20)}
        parent.kill()
    for _ in range(300):
        if not any(alive(worker) for worker in workers):
            return
        time.sleep(0.1)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    pytest.fail("workers outlived their parent by 30 seconds")


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a Dask cluster of two worker processes."""
    from distributed import LocalCluster

    before = dict(os.environ)  # it sets OMP_NUM_THREADS in this process too, and leaves it so
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        os.environ.clear()
        os.environ.update(before)
        yield cluster.scheduler_address


def test_a_cluster_gives_the_same_manifest_byte_for_byte(
    scheduler: str, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(digits_folder.parent)  # where the cluster's workers are not
    found = find_files(Path(digits_folder.name))
    write_table(tmp_path / "here.parquet", ingest("digits", found, MAX_PIXELS, workers=1))
    write_table(tmp_path / "processes.parquet", ingest("digits", found, MAX_PIXELS, workers=2))
    table = ingest("digits", found, MAX_PIXELS, cluster=scheduler)
    write_table(tmp_path / "cluster.parquet", table)
    here = (tmp_path / "here.parquet").read_bytes()
    assert (tmp_path / "processes.parquet").read_bytes() == here
    assert (tmp_path / "cluster.parquet").read_bytes() == here


def test_a_cluster_works_in_order_on_all_its_workers(scheduler: str) -> None:
    results = list(in_order(total, jobs(), workers=1, cluster=scheduler))
    assert [sum_ for sum_, _ in results] == [2 * n + 1 for n in range(100)]
    processes = {process for _, process in results}
    assert len(processes) == 2
    assert os.getpid() not in processes
    with pytest.raises(DataError, match="fifty"):
        list(in_order(fail_at_50, jobs(), workers=1, cluster=scheduler))


def test_a_cluster_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.data.parallel._CONNECT_SECONDS", 1)
    with pytest.raises(ServiceError, match=r"no Dask scheduler at tcp://127.0.0.1:9 .*processes"):
        list(in_order(total, jobs(), workers=1, cluster="tcp://127.0.0.1:9"))


def test_the_params_ask_for_a_cluster_and_the_environment_says_where() -> None:
    here = load_params(PARAMS).ingest
    dask = here.model_copy(update={"backend": "dask"})
    known = Settings(dask_scheduler="tcp://host:8786")
    assert cluster_address(here, known) is None
    assert cluster_address(dask, known) == "tcp://host:8786"
    with pytest.raises(ParamsError, match="VISIONLOOP_DASK_SCHEDULER"):
        cluster_address(dask, Settings(dask_scheduler=None))
