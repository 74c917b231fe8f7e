"""The drift check: the current release's reference against the window of the prediction log.

The command line and the nightly flow both call `run_check`; a flow that is to retrain asks
`should_retrain` first, which lets exactly one check through per cooldown.
"""

import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks import releases
from tasks.bundle import Bundle, open_bundle
from tasks.errors import BundleError
from tasks.monitoring.drift import DriftResult, check_drift
from tasks.params import Settings
from tasks.predictions import PredictionLog, Window, open_log
from tasks.schema import Drift, Params

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DriftCheck:
    """A check that was made and recorded; `report` is None when there was too little to show."""

    id: int
    time: datetime
    since: datetime
    until: datetime
    model_version: int
    bundle_digest: str
    result: DriftResult
    report: Path | None

    @property
    def outcome(self) -> str:
        """drift, no_drift or too_few."""
        return self.result.outcome

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON values, times in ISO 8601."""
        values = asdict(self) | {"summary": self.result.summary}
        for name in ("time", "since", "until"):
            values[name] = values[name].isoformat()
        return values | {"report": str(self.report) if self.report else None}


def run_check(settings: Settings, params: Params, now: datetime | None = None) -> DriftCheck:
    """Check the current release's predictions of the last `drift.window_hours`, and record it.

    The window begins after the predictions that started the last training run.
    Writes <home>/drift/<time>.html. Raises BundleError when nothing is promoted or the
    release is broken, ServiceError when the log cannot be read.
    """
    until = now or datetime.now(UTC)
    since = until - timedelta(hours=params.drift.window_hours)
    release = releases.current(settings)
    if release is None:
        raise BundleError(f"no release in {settings.releases}; `visionloop run` promotes the first")
    bundle = open_bundle(release.path, settings)
    predictions = open_log(settings.predictions_url)
    try:
        since = max(since, _acted_upon(predictions, since))
        window = predictions.window(since, until, bundle_digest=bundle.digest)
        result = check_drift(bundle.reference(), window, params.drift, bundle.info.classes)
        report = _report(settings.home / "drift", until, bundle, window, result)
        number = predictions.record_check(
            time=until,
            since=since,
            until=until,
            model_version=release.version,
            bundle_digest=bundle.digest,
            outcome=result.outcome,
            result=result.as_dict() | {"report": str(report) if report else None},
        )
    finally:
        predictions.close()
    log.info("drift check %d of version %d: %s", number, release.version, result.summary)
    return DriftCheck(number, until, since, until, release.version, bundle.digest, result, report)


def _report(
    folder: Path, time: datetime, bundle: Bundle, window: Window, result: DriftResult
) -> Path | None:
    if result.outcome == "too_few":
        return None
    from tasks.monitoring.report import write_report  # Evidently takes seconds to import

    path = folder / f"{time.astimezone(UTC):%Y%m%dT%H%M%S.%f}Z.html"
    write_report(path, bundle.reference(), window, bundle.info.classes, result)
    return path


def _acted_upon(predictions: PredictionLog, default: datetime) -> datetime:
    """Up to when predictions have led to a training run: they are no news a second time."""
    trigger = predictions.last_trigger()
    return trigger.until if trigger is not None else default


def should_retrain(
    predictions: PredictionLog, check: DriftCheck, params: Drift, now: datetime | None = None
) -> tuple[bool, str]:
    """Whether this check starts a training run, and why (not).

    True is given to one check per `cooldown_hours`, however many ask at once: it claims the
    right in the database. When no run could be started after all, `release_claim` the id.
    """
    if check.outcome != "drift":
        return False, check.result.summary
    cooldown = timedelta(hours=params.cooldown_hours)
    holder = predictions.claim_retraining(check.id, now or datetime.now(UTC), cooldown)
    if holder is None:
        return True, check.result.summary
    return False, (
        f"{check.result.summary}; but check {holder.id} of {holder.time:%Y-%m-%d %H:%M} UTC has "
        f"started training, within the cooldown of {params.cooldown_hours:g} h"
    )
