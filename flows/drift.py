"""The drift check as a flow: on confirmed drift it starts train-flow/default, once.

`drift_flow` is the deployment `drift-flow/nightly`; the check itself is tasks/monitoring and
is what `visionloop drift` runs.
"""

import logging
from typing import Any, cast

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.logs import log_to_prefect
from tasks.errors import ServiceError
from tasks.monitoring.check import DriftCheck, run_check, should_retrain
from tasks.params import Settings, load_params, load_settings
from tasks.predictions import open_log
from tasks.registry.register import run_page
from tasks.registry.server import temporary_server
from tasks.registry.sync import sync_all
from tasks.schema import Params
from tasks.tracking import open_run

TRAINING = "train-flow/default"
log = logging.getLogger(__name__)


@flow(name="drift-flow")
def drift_flow() -> dict[str, Any]:
    """Compare the window's predictions with the champion's reference; retrain on drift.

    Too few predictions is an outcome of its own. A second check inside the cooldown does not
    start a second training run.
    """
    log_to_prefect()
    settings, params = load_settings(), load_params()
    check = task(name="check", task_run_name="check")(run_check)(settings, params)
    page = task(name="track", task_run_name="track")(track)(check, settings)
    triggered, reason = task(name="react", task_run_name="react")(react)(check, settings, params)
    _publish(check, reason, page)
    return check.as_dict() | {"training_run": triggered, "reason": reason}


def track(check: DriftCheck, settings: Settings) -> str | None:
    """Record the check and its report in MLflow; one that is down gets them later.

    Gives the MLflow page of the record.
    """
    key = f"drift-{check.time:%Y%m%dt%H%M%S%f}"
    run = open_run(key, f"drift {check.time:%Y-%m-%d %H:%M}")
    run.tags({"outcome": check.outcome, "model_version": str(check.model_version)})
    run.metrics({f"distance.{_safe(f.name)}": f.distance for f in check.result.features})
    if check.report is not None:
        run.file(check.report)
    run.finish()
    try:
        with temporary_server(settings) as reachable:
            sync_all(reachable)
            return run_page(key, reachable)
    except ServiceError as error:
        log.warning("the drift report is not in MLflow yet: %s", error)
        return None


def react(check: DriftCheck, settings: Settings, params: Params) -> tuple[str | None, str]:
    """Start one training run if the check says so; gives its id (or None) and the reason."""
    predictions = open_log(settings.predictions_url)
    try:
        wanted, reason = should_retrain(predictions, check, params.drift)
        if not wanted:
            return None, reason
        try:
            run = cast(FlowRun, _start_training(check))
        except Exception:
            predictions.release_claim(check.id)  # the next check may try again
            raise
        predictions.record_trigger(check.id, str(run.id))
        return str(run.id), f"{reason}; started {TRAINING} as {run.name}"
    finally:
        predictions.close()


def _start_training(check: DriftCheck) -> object:
    """Create the run and return at once; the key makes a retried request the same run."""
    key = f"drift-check-{check.id}"
    return run_deployment(TRAINING, timeout=0, as_subflow=False, idempotency_key=key)


def _publish(check: DriftCheck, reason: str, page: str | None) -> None:
    lines = [f"**{check.outcome}**: {reason}", ""]
    if check.result.features:
        lines += ["| feature | distance | p-value | drifted |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {f.name} | {f.distance:.3f} | {f.p_value:.2g} | {'yes' if f.drifted else ''} |"
            for f in sorted(check.result.features, key=lambda f: -f.distance)
        ]
    create_markdown_artifact("\n".join(lines), key="drift", description="Drift check")
    if check.report is not None and page is not None:
        report = f"{page}/artifacts/{check.report.name}"
        create_link_artifact(report, key="drift-report", link_text="Evidently report")


def _safe(name: str) -> str:
    """A metric name that MLflow accepts: letters, digits and _-./ and spaces."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)
