"""The deployment `rollback-flow/default`."""

from typing import Any

from prefect import flow, task

from flows.logs import log_to_prefect
from flows.promote import roll_back


@flow(name="rollback-flow")
def rollback_flow(reason: str = "rolled back from Prefect") -> dict[str, Any]:
    """Put the previous version back into production, after loading and trying it."""
    log_to_prefect()
    done = task(name="rollback", task_run_name="rollback")(roll_back)(reason)
    return {"champion": done.champion, "previous": done.previous, "reason": done.reason}
