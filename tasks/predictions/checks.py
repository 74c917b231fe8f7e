"""Drift checks: their record, and the right to start a training run."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tasks.predictions.database import Database
from tasks.predictions.tables import checks, claim


@dataclass(frozen=True)
class Check:
    """A recorded drift check; `triggered` is the training run it started, if any."""

    id: int
    time: datetime
    since: datetime
    until: datetime
    model_version: int
    bundle_digest: str
    outcome: str
    result: Mapping[str, Any]
    triggered: str | None


class DriftChecks(Database):
    """The drift checks of a prediction log."""

    def record_check(
        self,
        *,
        time: datetime,
        since: datetime,
        until: datetime,
        model_version: int,
        bundle_digest: str,
        outcome: str,
        result: Mapping[str, Any],
    ) -> int:
        """Keep a drift check, whatever its outcome; `result` is JSON. Returns its id."""
        row = sa.insert(checks).values(
            time=time,
            since=since,
            until=until,
            model_version=model_version,
            bundle_digest=bundle_digest,
            outcome=outcome,
            result=dict(result),
        )
        with self._transaction() as connection:
            return int(connection.execute(row.returning(checks.c.id)).scalar_one())

    def last_check(self) -> Check | None:
        """The newest drift check, or None."""
        return self._newest(sa.true())

    def last_trigger(self) -> Check | None:
        """The newest drift check that started a training run, or None."""
        return self._newest(checks.c.triggered.is_not(None))

    def claim_retraining(self, check_id: int, now: datetime, cooldown: timedelta) -> Check | None:
        """Win the right to start a training run for `check_id`: once per cooldown.

        One compare-and-set in the database, so that of concurrent checks exactly one wins.
        Returns None when this check won, else the check that holds the claim.
        """
        free = sa.or_(claim.c.time.is_(None), claim.c.time <= now - cooldown)
        take = sa.update(claim).where(free).values(time=now, check_id=check_id)
        with self._transaction() as connection:
            if connection.execute(take).rowcount == 1:
                return None
            holder = sa.select(checks).join(claim, claim.c.check_id == checks.c.id)
            return Check(*connection.execute(holder).one())

    def release_claim(self, check_id: int) -> None:
        """Give the claim back because no run could be started: the next check may try."""
        give_back = sa.update(claim).where(claim.c.check_id == check_id).values(time=None)
        with self._transaction() as connection:
            connection.execute(give_back)

    def record_trigger(self, check_id: int, run_id: str) -> None:
        """Note the training run that a check started."""
        noted = sa.update(checks).where(checks.c.id == check_id).values(triggered=run_id)
        with self._transaction() as connection:
            connection.execute(noted)

    def _newest(self, condition: sa.ColumnElement[bool]) -> Check | None:
        query = sa.select(checks).where(condition).order_by(checks.c.id.desc()).limit(1)
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Check(*row)
