"""`python -m flows.worker`: apply the deployments, then become the Prefect worker.

`visionloop up` starts it beside the Prefect server. It waits for the server, because the
deployments and the worker need it, and replaces itself by the worker, so that signals and
the exit code are the worker's own.
"""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from flows.services import prefect_api_url, services
from tasks.errors import ServiceError
from tasks.params import load_settings
from tasks.step import run_process

POOL = "visionloop"
_START_SECONDS = 180  # a Prefect server on a slow machine creates its database first
log = logging.getLogger(__name__)


def main() -> None:
    """Wait, deploy, become the worker; raises ServiceError when the server does not come up."""
    prefect = services(load_settings())[0]
    deadline = time.monotonic() + _START_SECONDS
    while not prefect.answers():
        if time.monotonic() > deadline:
            raise ServiceError(f"the Prefect server {prefect.url} did not start; see its log")
        time.sleep(0.5)
    command = str(Path(sys.executable).with_name("prefect"))
    log.info("applying the deployments of prefect.yaml")
    if not _pool_exists():
        _run([command, "work-pool", "create", POOL, "--type", "process"])
    _run([command, "--no-prompt", "deploy", "--all"])
    os.execv(command, [command, "worker", "start", "--pool", POOL, "--type", "process"])  # noqa: S606


def _pool_exists() -> bool:
    response = httpx.get(f"{prefect_api_url()}/work_pools/{POOL}", trust_env=False)
    return response.status_code == 200


def _run(command: list[str]) -> None:
    if subprocess.run(command).returncode != 0:
        raise ServiceError(f"`{' '.join([Path(command[0]).name, *command[1:]])}` failed; see above")


if __name__ == "__main__":
    run_process(main)
