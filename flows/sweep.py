"""The sweep by several workers: `sweep-flow/default` starts them and writes the outcome.

Each worker is a run of `sweep-worker/default`, taken by whatever serves the work pool. They train
the trials; the step `tune` of dvc.yaml then finds the study finished and writes data/tune, or
finishes it itself when the workers have ended early.
"""

import csv
import logging
import time
from collections.abc import Mapping
from contextlib import chdir, closing
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import UUID

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelled
from pydantic import Field, JsonValue

from flows.logs import log_to_prefect
from flows.loop import forwarding
from flows.train import as_prefect_task
from tasks.data.parallel import cores
from tasks.data.shards import open_shards
from tasks.params import Settings, load_params, load_settings, read_yaml
from tasks.pipeline import exclusive, repro
from tasks.training.storage import place_of
from tasks.training.trial import Sweep
from tasks.training.tune import check_space, open_sweep_run, sweep_of
from tasks.training.worker import work
from tasks.workspace import Workspace, open_workspace

WORKER = "sweep-worker/default"
_IDLE_SECONDS = (
    180  # without any worker, after which none is waited for: they start within a minute
)
_POLL_SECONDS = 2.0
log = logging.getLogger(__name__)


@flow(name="sweep-flow", log_prints=False)
def sweep_flow(
    workers: Annotated[int, Field(ge=1, le=256)] = 2,
    overrides: dict[str, JsonValue] | None = None,
) -> dict[str, Any]:
    """Search hyperparameters with some workers and write data/tune.

    `overrides` are dotted keys of conf/params.yaml for this run alone, as {"tune.trials": 40}; a
    wrong key or value fails the run before anything is done.
    """
    log_to_prefect()
    settings = load_settings()
    params = load_params(overrides=overrides)
    check_space(params.tune, params.train)
    with exclusive(settings), forwarding(settings):
        workspace = open_workspace(overrides or {}, settings)
        as_prefect_task("prepare", repro, workspace, "prepare", settings)
        if workers > 1:
            run_workers(workers, workspace, settings)
        as_prefect_task("tune", repro, workspace, "tune", settings)
    return _publish(workspace)


@flow(name="sweep-worker", log_prints=False)
def sweep_worker(study: str, workspace: str, threads: int | None = None) -> int:
    """Train trials of a study until its budget is used; gives the number of its trials.

    `workspace` is the repository, or a run's own workspace, whose params and shards it is about;
    where there is no such folder, this machine's repository.
    """
    log_to_prefect()
    settings = load_settings()
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with chdir(workspace if Path(workspace).is_dir() else "."):
        return work(settings, study)


def run_workers(count: int, workspace: Workspace, settings: Settings) -> None:
    """Start `count` worker runs and wait until they have ended, or none is at work."""
    shards = open_shards(workspace.root / "data" / "shards")
    objective = sweep_of(workspace.params, shards, settings)
    open_sweep_run(objective, workspace.params)
    given = {
        "study": objective.key,
        "workspace": str(workspace.root.resolve()),
        # Workers beside each other share the cores; on machines of their own each has all.
        "threads": max(1, cores() // count) if settings.study_storage is None else None,
    }
    runs = [_start(number, given) for number in range(1, count + 1)]
    log.info("started %d workers of study %s", count, objective.key)
    _wait(runs, objective)


def _start(number: int, given: Mapping[str, Any]) -> UUID:
    name = f"{given['study']}-worker-{number}"
    run = run_deployment(WORKER, flow_run_name=name, parameters=dict(given), timeout=0)
    return cast(FlowRun, run).id


def _wait(runs: list[UUID], objective: Sweep) -> None:
    """The study says who is at work: a run whose machine has gone stays "running" in Prefect."""
    with closing(place_of(objective.key, objective.settings)) as place, _client() as client:
        seen = time.monotonic()
        while left := [run for run in runs if not _ended(client, run)]:
            if place.others():
                seen = time.monotonic()
            if time.monotonic() - seen > _IDLE_SECONDS:
                log.warning(
                    "no worker has been at work for %d s; the step `tune` goes on alone. Does a "
                    "Prefect worker serve the work pool?",
                    _IDLE_SECONDS,
                )
                for run in left:
                    client.set_flow_run_state(run, Cancelled(), force=True)
                return
            time.sleep(_POLL_SECONDS)


def _ended(client: SyncPrefectClient, run: UUID) -> bool:
    state = client.read_flow_run(run).state
    return state is not None and state.is_final()


def _client() -> SyncPrefectClient:
    return get_client(sync_client=True)


def _publish(workspace: Workspace) -> dict[str, Any]:
    """The trials as an artifact; gives the best one."""
    folder = workspace.root / "data" / "tune"
    with open(folder / "trials.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    best = read_yaml(folder / "best.yaml")
    create_table_artifact(rows, key="trials", description=f"Best: trial {best['trial']}")
    return {"best": best, "trials": len(rows), "folder": str(folder)}
