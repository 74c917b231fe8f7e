"""The tables, and how they come into being."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import SQLAlchemyError

_ATTEMPTS = 3
THE_CLAIM = 1


class Utc(sa.types.TypeDecorator[datetime]):
    """Aware datetimes in UTC, on databases with and without time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """An aware time, in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """An aware time, in UTC; SQLite gives it back without its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
metadata = sa.MetaData()

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("time", Utc, nullable=False),
    sa.Column("model_version", sa.Integer, nullable=False),
    sa.Column("bundle_digest", sa.String(64), nullable=False),
    sa.Column("predicted", sa.Integer, nullable=False),
    # Little-endian float32.
    sa.Column("probabilities", sa.LargeBinary, nullable=False),
    sa.Column("embedding", sa.LargeBinary, nullable=False),
    sa.Column("statistics", sa.LargeBinary, nullable=False),
    sa.Index("predictions_digest_time", "bundle_digest", "time"),
)

checks = sa.Table(
    "drift_checks",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("time", Utc, nullable=False),
    sa.Column("since", Utc, nullable=False),
    sa.Column("until", Utc, nullable=False),
    sa.Column("model_version", sa.Integer, nullable=False),
    sa.Column("bundle_digest", sa.String(64), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("triggered", sa.String(64)),  # the training run that this check started
)

# One row: which check last won the right to retrain. Compare-and-set on it decides races.
claim = sa.Table(
    "retraining_claim",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", Utc),
    sa.Column("check_id", _Id),
)


def create(engine: sa.Engine) -> None:
    """Create what is missing. Of two processes that start together one may lose and look again."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with engine.begin() as connection:
                metadata.create_all(connection)
                if connection.execute(sa.select(claim.c.id)).first() is None:
                    connection.execute(sa.insert(claim), {"id": THE_CLAIM})
            return
        except SQLAlchemyError:
            if attempt == _ATTEMPTS:
                raise
