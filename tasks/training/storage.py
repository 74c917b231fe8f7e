"""Where a study is kept, and which of its workers are alive.

A journal file is for the processes of one machine, PostgreSQL for several machines. Either way
a worker holds a lock that ends with its process (flock, or an advisory lock of its connection),
so that a killed worker is known at once and a slow one is never taken for dead.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from tasks.errors import ParamsError, ServiceError
from tasks.params import Settings

_TURN = 0  # the advisory lock that no worker has
# The server notices within a minute when a worker's machine has gone, and never ends an idle one.
_SESSION = (
    "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 "
    "-c idle_session_timeout=0"
)


class Journal:
    """A study in `<folder>/<study>.log`, for the processes of one machine; made, it is joined.

    `alone`: no other worker was at work when this one joined.
    """

    def __init__(self, folder: Path, study: str) -> None:
        self.study, self.file = study, folder / f"{study}.log"
        self.worker, self.alone = secrets.token_hex(4), False
        self._workers = folder / study / "workers"
        self._workers.mkdir(parents=True, exist_ok=True)
        with self.turn():
            self.alone = not any(self.alive(path.name) for path in self._workers.iterdir())
            self._lease = open(self._workers / self.worker, "w")  # noqa: SIM115 - held for life
            fcntl.flock(self._lease, fcntl.LOCK_EX)

    def storage(self) -> BaseStorage:
        """Optuna's view of it."""
        return JournalStorage(JournalFileBackend(str(self.file), _Lock(self.file)))  # type: ignore[arg-type]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One worker at a time: ask for a trial, give up lost ones."""
        with open(self.file.with_suffix(".turn"), "w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def alive(self, worker: str) -> bool:
        """Whether that worker's process still runs; the file of one that does not is removed."""
        path = self._workers / worker
        try:
            with open(path) as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        path.unlink(missing_ok=True)
        return False

    def others(self) -> int:
        """How many other workers are at work."""
        with self.turn():
            names = [path.name for path in self._workers.iterdir()]
            return sum(self.alive(name) for name in names if name != self.worker)

    def close(self) -> None:
        """Leave the study."""
        (self._workers / self.worker).unlink(missing_ok=True)
        self._lease.close()

    def replace(self, fill: Callable[[BaseStorage], None]) -> None:
        """Put another journal, written by `fill`, in this one's place; only when alone."""
        fresh = self.file.with_suffix(".rebuilt")
        fresh.unlink(missing_ok=True)
        fill(JournalStorage(JournalFileBackend(str(fresh), _Lock(fresh))))  # type: ignore[arg-type]
        os.replace(fresh, self.file)


class _Lock:
    """Optuna's lock of a journal, kept by the kernel: it ends with the process that holds it.

    Optuna's own are files, which a killed process leaves behind.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._stream: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock, and cut off the half line that a killed writer left."""
        self._stream = open(self._journal.with_suffix(".lock"), "w")  # noqa: SIM115
        fcntl.flock(self._stream, fcntl.LOCK_EX)
        with open(self._journal, "r+b") as journal:
            end = journal.seek(0, os.SEEK_END)
            journal.seek(max(0, end - 1))
            if journal.read(1) not in (b"\n", b""):
                journal.seek(0)
                journal.truncate(journal.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Let the next one write."""
        if self._stream is not None:
            self._stream.close()


class Database:
    """A study in PostgreSQL, for workers on any number of machines; made, it is joined."""

    def __init__(self, url: str, study: str) -> None:
        self.study, self._url = study, _address(url)
        self.worker = str(secrets.randbelow(2**31 - 2) + 1)
        digest = hashlib.sha256(study.encode()).digest()
        self._space = int.from_bytes(digest[:4], "big") >> 1
        options = {"options": _SESSION, "connect_timeout": 10}
        self._engine = sa.create_engine(
            self._url, poolclass=NullPool, connect_args=options, isolation_level="AUTOCOMMIT"
        )
        with database_errors(self._url):
            self._lease = self._locked(int(self.worker))

    def storage(self) -> BaseStorage:
        """Optuna's view of it; makes its tables in an empty database: to be had in one's turn."""
        address = self._url.render_as_string(hide_password=False)
        return RDBStorage(address, engine_kwargs={"pool_pre_ping": True})

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One worker at a time: ask for a trial, give up lost ones."""
        self._renew()
        connection = self._locked(_TURN)
        try:
            yield
        finally:
            connection.close()

    def alive(self, worker: str) -> bool:
        """Whether that worker's connection still stands."""
        with self._engine.connect() as connection:
            lock = sa.func.pg_try_advisory_lock(self._space, int(worker))
            return not connection.scalar(sa.select(lock))

    def others(self) -> int:
        """How many other workers are at work."""
        locks = sa.text(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE locktype = 'advisory' AND granted AND datname = current_database() "
            "AND classid = :study AND objid <> :turn AND objid <> :worker"
        )
        keys = {"study": self._space, "turn": _TURN, "worker": int(self.worker)}
        with database_errors(self._url), self._engine.connect() as connection:
            return int(connection.scalar(locks, keys) or 0)

    def close(self) -> None:
        """Leave the study."""
        self._lease.close()

    def _renew(self) -> None:
        """Take this worker's lock again if its connection broke while it trained."""
        try:
            self._lease.execute(sa.select(1))
        except SQLAlchemyError:
            self._lease.close()
            self._lease = self._locked(int(self.worker))

    def _locked(self, key: int) -> sa.Connection:
        """A connection that holds an advisory lock until it is closed."""
        connection = self._engine.connect()
        connection.execute(sa.select(sa.func.pg_advisory_lock(self._space, key)))
        return connection


Place = Journal | Database


def place_of(study: str, settings: Settings) -> Place:
    """The study's place by the settings: PostgreSQL, or a file under `home`; joins it."""
    if settings.study_storage is None:
        return Journal(settings.home / "studies", study)
    return Database(settings.study_storage.get_secret_value(), study)


@contextmanager
def database_errors(url: sa.URL | None = None) -> Iterator[None]:
    """Turn a database that cannot be used into a ServiceError, without its password."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()
        where = f" {url.render_as_string()}" if url is not None else ""
        raise ServiceError(
            f"the study's database{where} cannot be used: {cause[0] if cause else error}; "
            "VISIONLOOP_STUDY_STORAGE says where it is"
        ) from error


def _address(url: str) -> sa.URL:
    try:
        address = sa.make_url(url)
        address.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError):
        address = sa.URL.create("")
    except ModuleNotFoundError as error:
        raise ServiceError(
            f"VISIONLOOP_STUDY_STORAGE needs {error.name}; `pip install visionloop[postgres]` "
            "brings it"
        ) from error
    if not address.drivername.startswith("postgresql"):  # its text may hold a password
        raise ParamsError(
            "VISIONLOOP_STUDY_STORAGE is not postgresql://user:password@host/database; unset it "
            "for a file, which serves the processes of one machine"
        )
    return address
