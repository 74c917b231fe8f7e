"""The data set as a git revision has it: its two tables, from DVC's cache or its remote."""

import hashlib
import logging
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.tables import CLEANED, SPLITS, read_table
from tasks.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from dvc.repo import Repo

WORKING_TREE = "working tree"
_MADE_BY = {CLEANED: "clean", SPLITS: "split"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Revision:
    """The tables of one revision; `commit` is None for the working tree."""

    name: str
    commit: str | None
    cleaned: "pd.DataFrame"
    splits: "pd.DataFrame"


def read_revision(root: Path, name: str | None) -> Revision:
    """The tables at a branch, tag or commit; the files in `root` when `name` is None.

    Raises DataError when there is no such revision, when it has no data in its dvc.lock, and
    when neither cache nor remote has them.
    """
    if name is None:
        tables = [read_table(root / path, made_by) for path, made_by in _MADE_BY.items()]
        return Revision(WORKING_TREE, None, *tables)
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import NoSCMError, RevError

    try:
        # The remotes of today: at a revision, DVC looks for a relative one at the wrong place.
        with Repo(str(root)) as today:
            remotes = {"core": dict(today.config["core"]), "remote": dict(today.config["remote"])}
        with Repo(str(root), rev=name, config=remotes) as repository:
            tables = [_table(repository, path, name) for path in _MADE_BY]
            return Revision(name, repository.get_rev(), *tables)
    except RevError:
        raise DataError(
            f"{name!r} is no git revision here; `git log --oneline` and `git tag` list those "
            "there are"
        ) from None
    except NoSCMError:
        raise DataError(f"{root} is not a git repository, so it has no revisions") from None
    except DvcException as error:
        raise DataError(f"revision {name!r} cannot be read: {error}") from None


def _table(repository: "Repo", path: Path, name: str) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(BytesIO(_content(repository, path, name)))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} of revision {name!r} is not a table: {error}") from None


def _content(repository: "Repo", path: Path, name: str) -> bytes:
    """The bytes of an output, checked against the MD5 that the revision's dvc.lock names."""
    digest = _locked_md5(repository, path)
    if digest is None:
        raise DataError(
            f"revision {name!r} has no {path} in its dvc.lock: no run was committed there; "
            "after a run, `git add dvc.lock && git commit` records its data"
        )
    try:
        content: bytes = repository.dvcfs.cat_file(f"/{path.as_posix()}")
    except Exception as error:  # each kind of remote has errors of its own
        raise DataError(
            f"{path} of revision {name!r} (md5 {digest}) is neither in the cache nor to be had "
            f"from the remote ({error}). Where it was made, `dvc push --all-commits` sends it; "
            "then `dvc fetch --all-commits` here"
        ) from None
    if (actual := hashlib.md5(content, usedforsecurity=False).hexdigest()) != digest:
        raise DataError(
            f"{path} of revision {name!r} is damaged: its md5 is {actual}, dvc.lock has {digest}; "
            f"remove the object {digest[:2]}/{digest[2:]} of the cache and "
            "`dvc fetch --all-commits`"
        )
    return content


def _locked_md5(repository: "Repo", path: Path) -> str | None:
    try:
        digest: str | None = repository.dvcfs.info(f"/{path.as_posix()}").get("md5")
    except FileNotFoundError:
        return None
    return digest
