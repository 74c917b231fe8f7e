"""Damaged and missing data, found and fetched again from the remote."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import PipelineError
from tasks.versions.locked import Finding, Hashed, examine, is_imported, md5, outputs, relative

if TYPE_CHECKING:
    from dvc.repo import Repo


@dataclass(frozen=True)
class Repaired:
    """What was wrong, what still is, and why the remote did not help, if it did not."""

    found: list[Finding]
    remaining: list[Finding]
    reason: str | None


def verify(
    root: Path,
    jobs: int | None = None,
    hashed: Hashed | None = None,
    targets: Iterable[str] | None = None,
) -> list[Finding]:
    """Hash what dvc.lock and the *.dvc files name, in cache and workspace; all or `targets`.

    Raises PipelineError when DVC cannot read the repository.
    """
    chosen = None if targets is None else set(targets)
    with _repository(root) as repository:
        outs = [out for out in outputs(repository) if chosen is None or relative(out) in chosen]
        return examine(outs, jobs, hashed)


def repair(
    root: Path, absent: bool, jobs: int | None = None, hashed: Hashed | None = None
) -> Repaired:
    """Fetch damaged objects again and check them out.

    With `absent`, outputs that are missing are fetched and checked out too, and an edited one
    stops it, as in `dvc pull`; without, edited outputs are replaced. A damaged object leaves the
    cache, unless a *.dvc file names it and the remote has no other. Raises PipelineError.
    """
    first = verify(root, jobs, hashed)
    touched = {one.target for one in first if absent or not one.missing}
    found = {_key(one): one for one in first if one.target in touched}
    reason = _fetch_again(root, found, jobs)
    _check_out(root, found, absent)
    remaining = verify(root, jobs, targets=touched)
    _discard(one for one in remaining if one.place == "cache" and not one.imported)
    return Repaired(list(found.values()), remaining, reason)


def _fetch_again(root: Path, found: dict[tuple[str, str], Finding], jobs: int | None) -> str | None:
    """Replace what is wrong in the cache; adds to `found` what only then comes to light.

    When a directory's list of files was damaged, its files are known after the first round.
    """
    reason, tried = None, set[tuple[str, str]]()
    while wanted := [
        one for key, one in found.items() if one.place == "cache" and key not in tried
    ]:
        tried |= {_key(one) for one in wanted}
        targets = {one.target for one in wanted}
        with _set_aside(one for one in wanted if not one.missing):
            reason = _fetch(root, targets, jobs) or reason
        for one in verify(root, jobs, targets=targets):
            found.setdefault(_key(one), one)
    return reason


def _fetch(root: Path, targets: Iterable[str], jobs: int | None) -> str | None:
    """Fetch outputs from the remote; gives the reason when not all came."""
    from dvc.lock import LockError

    with _repository(root) as repository:
        try:
            repository.fetch(targets=sorted(targets), jobs=jobs)
        except LockError:
            raise
        except Exception as error:  # each kind of remote has errors of its own
            return str(error) or type(error).__name__
    return None


@contextmanager
def _set_aside(damaged: Iterable[Finding]) -> Iterator[None]:
    """Damaged objects out of the way; one that nothing here can make comes back if need be."""
    # by object: files of the same content share one
    moved = {one.object: one.imported for one in damaged}
    aside = {path: path.with_name(f"{path.name}.damaged") for path in moved}
    for path, away in aside.items():
        os.replace(path, away)
    try:
        yield
    finally:
        for path, away in aside.items():
            if moved[path] and not path.exists():
                os.replace(away, path)
            else:
                away.unlink()


def _check_out(root: Path, found: dict[tuple[str, str], Finding], absent: bool) -> None:
    """Bring the workspace in line, but for outputs of which the cache lacks a part.

    DVC removes an output that it cannot check out whole. What it takes for unchanged, by
    size, time and inode, it leaves: so what is known to be damaged is removed first.
    """
    now = verify(root, targets={one.target for one in found.values()})
    lacking = {one.target for one in now if one.place == "cache"}
    mended = [one for one in found.values() if one.target not in lacking]
    removed = _remove_damaged(root, mended, absent)
    targets = {one.target for one in mended if not one.imported} | removed
    with _repository(root) as repository:
        if absent:
            imported = (out for out in outputs(repository) if is_imported(out))
            missing = {relative(out) for out in imported if not os.path.exists(out.fs_path)}
            targets |= missing - lacking
        if targets:
            repository.checkout(targets=sorted(targets), force=not absent)


def _remove_damaged(root: Path, mended: list[Finding], absent: bool) -> set[str]:
    """Remove files that are copies of a damaged object and, unless `absent`, edited ones.

    Gives those that `dvc add` tracks: each is checked out by itself, since the folder can
    have files that DVC has not seen yet.
    """
    damaged = {one.actual for one in mended if one.place == "cache"}
    removed = set()
    for one in mended:
        present = md5(root / one.path, "md5")
        edited = one.place == "workspace" and not absent
        if present is not None and (present in damaged or edited):
            (root / one.path).unlink()
            removed |= {one.path} if one.imported else set()
    return removed


def _discard(damaged: Iterable[Finding]) -> None:
    """Remove objects for which there is no better, so that their stages run again."""
    for one in damaged:
        with suppress(FileNotFoundError):
            one.object.unlink()


def _key(finding: Finding) -> tuple[str, str]:
    return finding.place, finding.path


@contextmanager
def _repository(root: Path) -> "Iterator[Repo]":
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repository:
            yield repository
    except DvcException as error:
        raise PipelineError(f"DVC cannot do this in {root}: {error}") from None
