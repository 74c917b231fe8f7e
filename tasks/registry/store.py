"""The database of a machine's MLflow, <home>/mlflow/mlflow.db: whole, or not there.

MLflow makes its tables by some sixty migrations that are no transaction: a server killed
during its first start leaves a database that no later server opens. So the database is made
under another name and renamed.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from tasks.errors import ServiceError
from tasks.locks import held
from tasks.params import Settings
from tasks.step import run_process

DATABASE = "mlflow.db"
_CREATION_SECONDS = 240.0
log = logging.getLogger(__name__)


def prepare_store(settings: Settings) -> Path:
    """The directory <home>/mlflow, with its database; raises ServiceError when it has none."""
    store = (settings.home / "mlflow").resolve()
    database = store / DATABASE
    if not database.exists():
        with held(store / ".create.lock", _CREATION_SECONDS, "another process makes the database"):
            if not database.exists():
                _create(database)
    return store


def _create(database: Path) -> None:
    log.info("making the MLflow database %s", database)
    for leftover in database.parent.glob(f".{DATABASE}.*"):
        leftover.unlink(missing_ok=True)
    temporary = database.with_name(f".{DATABASE}.{uuid4().hex[:8]}.tmp")
    command = [sys.executable, "-m", "tasks.registry.store", str(temporary)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        temporary.unlink(missing_ok=True)
        raise ServiceError(f"MLflow cannot make its database {database}:\n{done.stderr[-1500:]}")
    os.replace(temporary, database)


def main() -> None:
    """Make the tables and the default experiment in the file that is the first argument."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{sys.argv[1]}", "mlflow-artifacts:/")  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    run_process(main)
