"""Predictions: append in batches, count, read a window as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from tasks.errors import DataError
from tasks.predictions.checks import DriftChecks
from tasks.predictions.database import connect
from tasks.predictions.tables import predictions

WINDOW_ROWS = 50_000  # a longer window is thinned evenly: more adds nothing to a KS test

_ARRAYS = ("probabilities", "embedding", "statistics")

Floats = npt.NDArray[np.float32]


class Prediction(NamedTuple):
    """What was answered for one image.

    `predicted` is the class's index; probabilities float32 [C], embedding float32 [D],
    statistics float32 [5] as tasks.pixels.STATISTICS.
    """

    time: datetime
    model_version: int
    bundle_digest: str
    predicted: int
    probabilities: Floats
    embedding: Floats
    statistics: Floats


@dataclass(frozen=True)
class Window:
    """Predictions between two times, oldest first.

    probabilities float32 N×C, embedding float32 N×D, statistics float32 N×5, predicted
    int64 [N], times [N] (UTC). `total` counts the rows before thinning to WINDOW_ROWS.
    """

    probabilities: Floats
    embedding: Floats
    statistics: Floats
    predicted: npt.NDArray[np.int64]
    times: list[datetime]
    total: int

    def __len__(self) -> int:
        return len(self.times)


class PredictionLog(DriftChecks):
    """The log at one address: predictions, and the drift checks made on them."""

    def append(self, rows: Sequence[Prediction]) -> None:
        """Add rows in one transaction: all of them or none; raises ServiceError."""
        if not rows:
            return
        with self._transaction() as connection:
            connection.execute(sa.insert(predictions), [_values(row) for row in rows])

    def count(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        model_version: int | None = None,
        bundle_digest: str | None = None,
    ) -> int:
        """How many predictions were logged in [since, until)."""
        where = _where(since, until, model_version, bundle_digest)
        with self._transaction() as connection:
            return _total(connection, where)

    def window(
        self,
        since: datetime,
        until: datetime,
        model_version: int | None = None,
        bundle_digest: str | None = None,
    ) -> Window:
        """The predictions in [since, until), thinned evenly to at most WINDOW_ROWS.

        Raises DataError when models with different outputs are mixed: ask for one.
        """
        where = _where(since, until, model_version, bundle_digest)
        with self._transaction() as connection:
            total = _total(connection, where)
            rows = connection.execute(_thinned(where, -(-total // WINDOW_ROWS))).all()
        return _window(rows, total)


def open_log(url: str) -> PredictionLog:
    """The log at a SQLAlchemy address; connects on first use. Raises ServiceError."""
    return PredictionLog(connect(url))


def _where(
    since: datetime | None,
    until: datetime | None,
    model_version: int | None,
    bundle_digest: str | None,
) -> list[sa.ColumnElement[bool]]:
    table = predictions.c
    conditions = [
        None if since is None else table.time >= since,
        None if until is None else table.time < until,
        None if model_version is None else table.model_version == model_version,
        None if bundle_digest is None else table.bundle_digest == bundle_digest,
    ]
    return [condition for condition in conditions if condition is not None]


def _total(connection: sa.Connection, where: list[sa.ColumnElement[bool]]) -> int:
    query = sa.select(sa.func.count()).select_from(predictions).where(*where)
    return int(connection.execute(query).scalar_one())


def _thinned(where: list[sa.ColumnElement[bool]], step: int) -> sa.Select[Any]:
    number = sa.func.row_number().over(order_by=predictions.c.id).label("number")
    rows = sa.select(predictions, number).where(*where).subquery()
    query = sa.select(rows).order_by(rows.c.id).limit(WINDOW_ROWS)
    return query.where(rows.c.number % step == 0) if step > 1 else query


def _values(row: Prediction) -> dict[str, Any]:
    values = row._asdict()
    for name in _ARRAYS:
        values[name] = np.asarray(values[name], "<f4").tobytes()
    return values


def _window(rows: Sequence[Any], total: int) -> Window:
    return Window(
        **{name: _matrix([getattr(row, name) for row in rows]) for name in _ARRAYS},
        predicted=np.array([row.predicted for row in rows], np.int64),
        times=[row.time for row in rows],
        total=total,
    )


def _matrix(rows: list[bytes]) -> Floats:
    if len({len(row) for row in rows}) > 1:
        raise DataError(
            "the window mixes models with different outputs; give a model_version or bundle_digest"
        )
    return np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), -1 if rows else 0).copy()
