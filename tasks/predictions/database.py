"""One database by address: connects late, explains itself, never shows a password."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from tasks.errors import ServiceError
from tasks.predictions.tables import create

_CONNECT_SECONDS = 5


class Database:
    """Connects on first use, so that a server starts without its database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._created = False

    @property
    def address(self) -> str:
        """The address, without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """One transaction: all of it or nothing; raises ServiceError naming the address."""
        try:
            if not self._created:
                create(self._engine)
                self._created = True
            with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            self._created = False  # the file or the server may be another one next time
            raise ServiceError(
                f"the prediction log {self.address} cannot be used: {_cause(error)}; "
                "VISIONLOOP_DATABASE_URL says where it is"
            ) from error


def connect(url: str) -> sa.Engine:
    """An engine for a SQLAlchemy address; raises ServiceError when the address is no good."""
    try:
        address = sa.make_url(url)
        if address.get_backend_name() == "sqlite":
            return _sqlite(address)
        options = {"connect_timeout": _CONNECT_SECONDS}
        return sa.create_engine(address, pool_pre_ping=True, connect_args=options)
    except ArgumentError as error:  # its text may hold the password
        raise ServiceError(
            "VISIONLOOP_DATABASE_URL is not a database address; it looks like "
            "postgresql://user:password@host/database or sqlite:////path/predictions.db"
        ) from error
    except ModuleNotFoundError as error:
        raise ServiceError(
            f"the prediction log needs {error.name}; `pip install visionloop[postgres]` brings it"
        ) from error


def _sqlite(address: sa.URL) -> sa.Engine:
    # No pool: each transaction opens the file anew, so a file moved away is noticed.
    options = {"timeout": _CONNECT_SECONDS}
    engine = sa.create_engine(address, poolclass=NullPool, connect_args=options)

    @sa.event.listens_for(engine, "do_connect")
    def make_folder(*_: object) -> None:
        if address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        # Readers and the one writer do not block each other; a crash loses no committed row.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def _cause(error: Exception) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
