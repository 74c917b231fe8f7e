"""What dvc.lock and the *.dvc files name, file by file, and whether it is what is there.

DVC takes a read-only cache object for sound, and a file whose size, time and inode it knows
for unchanged. Here every file is hashed again.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage

Place = Literal["cache", "workspace"]
Hashed = Callable[[int, int], None]
"""Called after each file with the number of files that have been hashed, and of all."""


@dataclass(frozen=True)
class Locked:
    """A file that a run depends on; of a directory, the list of its files is one too.

    `path` is relative to the repository; `target` what `dvc` takes for its output, and `stage`
    the stage that makes it or, where `imported`, the *.dvc file that names it.
    """

    path: str
    target: str
    stage: str
    imported: bool
    digest: str
    hash_name: str
    object: Path
    file: Path | None  # None: the list of files of a directory is in the cache alone


@dataclass(frozen=True)
class Finding:
    """A file that is not what is named: `actual` is its hash, None where it is missing.

    `place` says which copy; `expected` is None for a file that does not belong there; `object`
    is where the cache has it.
    """

    path: str
    target: str
    stage: str
    imported: bool
    place: Place
    expected: str | None
    actual: str | None
    object: Path

    @property
    def missing(self) -> bool:
        """Whether there is nothing, rather than something else."""
        return self.actual is None

    @property
    def lists_files(self) -> bool:
        """Whether it is a directory's list of files, which is in the cache alone."""
        return self.object.suffix == ".dir"

    @property
    def way_out(self) -> str:
        """How to have the file again when the remote has it not."""
        if self.imported:
            return f"put {self.target} back from where it came and `dvc add {self.target}`"
        return f"`dvc repro --force --single-item {self.stage}` makes {self.target} anew"

    def __str__(self) -> str:
        place = self.path if self.place == "workspace" else f"{self.path} in DVC's cache"
        owner, named = (
            (self.stage, self.stage) if self.imported else (f"stage {self.stage}", "dvc.lock")
        )
        if self.expected is None:
            return f"{place}: does not belong in {self.target} ({owner})"
        found = "is missing" if self.missing else f"has md5 {self.actual}"
        return f"{place}: {found}, {named} names {self.expected} ({owner})"


def outputs(repository: "Repo") -> "Iterator[Output]":
    """All outputs in DVC's cache that have run or been added."""
    for stage in repository.index.stages:
        yield from cached(stage)


def cached(stage: "Stage") -> "list[Output]":
    """The outputs of a stage that DVC's cache has, if it ran."""
    return [out for out in stage.outs if out.use_cache and out.hash_info]


def examine(
    outs: "Iterable[Output]", jobs: int | None = None, hashed: Hashed | None = None
) -> list[Finding]:
    """Hash cache objects and files of the outputs; what is missing or another is a finding.

    The files of a directory whose own list is missing or damaged are not known, so not looked at.
    """
    outs = list(outs)
    folders = [out for out in outs if out.hash_info.isdir]
    found = [result for out in folders for result in _compare(_object(out))]
    unknown = {result.target for result in found}
    files = [_object(out) for out in outs if not out.hash_info.isdir]
    for out in folders:
        if relative(out) not in unknown:
            inside = members(out)
            files += inside
            found += _strangers(out, inside)
    return found + _examine_files(files, jobs, hashed)


def members(out: "Output") -> list[Locked]:
    """The files of a directory output; its list of files must be sound."""
    from dvc_data.hashfile.tree import Tree

    tree: Any = Tree.load(out.cache, out.hash_info)
    return [_locked(out, info.value, key, Path(out.fs_path, *key)) for key, _, info in tree]


def relative(out: "Output") -> str:
    """An output's path from the repository's root, as `dvc` takes it for a target."""
    path: str = os.path.relpath(out.fs_path, out.repo.root_dir)
    return path


def is_imported(out: "Output") -> bool:
    """Whether a *.dvc file names it: nothing here can make it anew."""
    return bool(out.stage.cmd is None)


def md5(path: Path, hash_name: str) -> str | None:
    """The hash of a file as DVC names it, or why it cannot be read; None when there is none."""
    from dvc_data.hashfile.hash import file_md5

    try:
        value: str = file_md5(str(path), name=hash_name)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:  # a failing disk says so
        return f"unreadable ({error.strerror})"
    return value


def one_a_file(findings: Iterable[Finding]) -> list[Finding]:
    """The finding in the workspace where there is one in the cache too: often they are linked."""
    seen: dict[str, Finding] = {}
    for one in findings:
        if one.path not in seen or one.place == "workspace":
            seen[one.path] = one
    return list(seen.values())


def _examine_files(files: list[Locked], jobs: int | None, hashed: Hashed | None) -> list[Finding]:
    found: list[Finding] = []
    with ThreadPoolExecutor(jobs or min(8, os.cpu_count() or 1)) as pool:
        for done, results in enumerate(pool.map(_compare, files), 1):
            found += results
            if hashed is not None:
                hashed(done, len(files))
    return found


def _compare(locked: Locked) -> list[Finding]:
    expected = locked.digest.removesuffix(".dir")
    cached = md5(locked.object, locked.hash_name)
    found = [] if cached == expected else [_finding(locked, "cache", cached)]
    # In a folder that `dvc add` tracks, the workspace is ahead until it is added again.
    if locked.file is None or locked.imported:
        return found
    present = cached if _same(locked) else md5(locked.file, locked.hash_name)
    if present != expected:
        found.append(_finding(locked, "workspace", present))
    return found


def _same(locked: Locked) -> bool:
    """Whether the file is a link to the object."""
    try:
        return locked.file is not None and os.path.samefile(locked.object, locked.file)
    except OSError:
        return False


def _strangers(out: "Output", inside: list[Locked]) -> list[Finding]:
    """The files in a stage's directory that do not belong there."""
    if is_imported(out) or not os.path.isdir(out.fs_path):
        return []
    known = {str(locked.file) for locked in inside}
    ignore = out.repo.dvcignore
    there = [file for file in ignore.find(out.fs, out.fs_path) if file not in known]
    return [
        replace(
            _finding(_locked(out, "", (), None), "workspace", md5(Path(file), out.hash_name)),
            path=os.path.relpath(file, out.repo.root_dir),
            expected=None,
        )
        for file in there
    ]


def _finding(locked: Locked, place: Place, actual: str | None) -> Finding:
    return Finding(
        path=locked.path,
        target=locked.target,
        stage=locked.stage,
        imported=locked.imported,
        place=place,
        expected=locked.digest,
        actual=actual,
        object=locked.object,
    )


def _object(out: "Output") -> Locked:
    """What an output's hash names: the file itself, or a directory's list of files."""
    file = None if out.hash_info.isdir else Path(out.fs_path)
    return _locked(out, out.hash_info.value, (), file)


def _locked(out: "Output", digest: str, key: tuple[str, ...], file: Path | None) -> Locked:
    return Locked(
        path=os.path.join(relative(out), *key),
        target=relative(out),
        stage=out.stage.addressing,
        imported=is_imported(out),
        digest=digest,
        hash_name=out.hash_name,
        object=Path(out.cache.oid_to_path(digest)),
        file=file,
    )
