"""The deployment `train-flow/default`: the training loop with each step as a Prefect task."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import flow, task
from pydantic import JsonValue

from flows.artifacts import publish
from flows.logs import log_to_prefect
from flows.loop import run_loop

P = ParamSpec("P")
T = TypeVar("T")
RETRIED = ("register", "promote")  # they talk to a server, and may be repeated


def as_prefect_task(name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a step as a Prefect task; what talks to MLflow is tried again."""
    retries = 2 if name in RETRIED else 0
    decorate = task(name=name, task_run_name=name, retries=retries, retry_delay_seconds=5)
    return decorate(step)(*args, **kwargs)


@flow(name="train-flow", log_prints=False)
def train_flow(overrides: dict[str, JsonValue] | None = None) -> dict[str, Any]:
    """Rebuild what changed up to the release bundle, register, gate, promote.

    `overrides` are dotted keys of conf/params.yaml for this run alone, as
    {"train.lr": 0.01}; a wrong key or value fails the run before anything is done.
    """
    log_to_prefect()
    result = run_loop(overrides or {}, call=as_prefect_task)
    publish(result)
    return result.as_json()
