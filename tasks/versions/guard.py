"""Before a run: an output that is not what dvc.lock names stops it.

`dvc repro` would make an edited output anew without a word, and `dvc checkout` can have
restored a damaged cache object, which DVC then takes for sound.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data.shards import SHARDS
from tasks.errors import DataError
from tasks.versions.locked import Finding, cached, examine, is_imported, one_a_file, relative

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage

Status = Mapping[str, list[Any]]

_SHOWN = 10
_EDITED = "modified"
_LOST = ("not in cache", "new")
# Each step that opens the shards compares them with their SHA-256, and `prepare` the images
# with the pixels that were ingested: they can be large, and need not be hashed here again.
_VERIFIED_WHEN_READ = (SHARDS, Path("data/raw"))


def refuse_altered(repository: "Repo", target: str, status: Status) -> None:
    """Stop when an output that the run would use or replace is not what dvc.lock names.

    `status` is DVC's, of the stages up to `target` ("train"). An edited output of a
    stage that runs again for another reason is about to be replaced and stops nothing. Raises
    DataError naming the file, both hashes and the ways out.
    """
    graph = repository.index.graph
    last = next(stage for stage in graph if getattr(stage, "name", None) == target)
    stages = [stage for stage in _upstream(graph, last) if stage.cmd is not None]
    made = {relative(out) for stage in stages for out in stage.outs}
    entries = {stage: status.get(stage.addressing, []) for stage in stages}
    own = {stage for stage in stages if _changed_itself(entries[stage], made)}
    looked_at = []
    for stage in (stage for stage in stages if stage not in own):
        # Below a stage that runs, this one may turn out to be up to date: DVC runs it only
        # where it has noticed the edit.
        replaced = bool(own & _upstream(graph, stage))
        edited = _changed(entries[stage], (_EDITED,))
        looked_at += [
            out
            for out in cached(stage)
            if (not replaced if relative(out) in edited else not _verified_when_read(out))
        ]
    if wrong := _used(examine(looked_at)):
        raise DataError(_describe(wrong, Path(repository.root_dir)))


def _used(findings: list[Finding]) -> list[Finding]:
    """Without those of a file that is not there to be used, or sound where it is used."""
    workspace = {one.path: one for one in findings if one.place == "workspace"}

    def used(one: Finding) -> bool:
        if one.missing or one.place == "workspace":
            return not one.missing
        checked_out_next = one.path in workspace and workspace[one.path].missing
        return one.lists_files or checked_out_next

    return one_a_file(one for one in findings if used(one))


def _upstream(graph: Any, stage: "Stage") -> "set[Stage]":
    """The stage and those it needs, directly or through others."""
    above = (_upstream(graph, needed) for needed in graph.successors(stage))
    return {stage}.union(*above)


def _changed_itself(entries: list[Any], made: set[str]) -> bool:
    """Whether a stage's status has more in it than edited outputs, its own or its inputs'."""
    if any(isinstance(entry, str) for entry in entries) or _changed(entries, _LOST):
        return True
    inputs = {path for entry in entries for path in _section(entry, "changed deps")}
    return any(not _within(path, made) for path in inputs)


def _changed(entries: list[Any], kinds: tuple[str, ...]) -> list[str]:
    """The outputs among a stage's status entries that changed in one of these ways."""
    return [
        path
        for entry in entries
        for path, kind in _section(entry, "changed outs").items()
        if kind in kinds
    ]


def _section(entry: Any, name: str) -> dict[str, Any]:
    found = entry.get(name, {}) if isinstance(entry, Mapping) else {}
    return dict(found)


def _within(path: str, made: set[str]) -> bool:
    return any(Path(path).is_relative_to(out) for out in made)


def _verified_when_read(out: "Output") -> bool:
    path = Path(relative(out))
    return is_imported(out) or any(path.is_relative_to(known) for known in _VERIFIED_WHEN_READ)


def _describe(wrong: list[Finding], root: Path) -> str:
    lines = [str(finding) for finding in wrong[:_SHOWN]]
    more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    return "\n  ".join(["the data are not what dvc.lock names", *lines, *more, *_ways(wrong, root)])


def _ways(wrong: list[Finding], root: Path) -> list[str]:
    if not root.samefile(Path.cwd()):
        return [f"{root} is the workspace of an override: remove it, the next run makes it anew"]
    stages = " ".join(sorted({finding.stage for finding in wrong}))
    return [
        "To have what dvc.lock names again: `visionloop data verify --repair`",
        f"To keep what is there: `dvc commit {stages}`, then run again",
    ]
