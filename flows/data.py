"""`visionloop data …`: compare two revisions of the data set; verify, repair and pull data."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tasks.data.diff import ClassChange, Difference, difference
from tasks.data.diff_page import TITLES, render
from tasks.data.images import source_folders
from tasks.files import write_text
from tasks.params import load_params, load_settings
from tasks.pipeline import exclusive
from tasks.versions.locked import Finding, Hashed, one_a_file
from tasks.versions.repair import Repaired, repair, verify
from tasks.versions.revision import read_revision

Deed = Literal["look", "repair", "pull"]
_SHOWN = 20
_PAIRS = 3
_PATHS = 2
_NUMBERS = {
    "distinct images": "images",
    "in a split": "kept",
    "files": "files",
    "unreadable files": "unreadable",
}


def compare(before: str, after: str | None) -> Difference:
    """The difference between the data of two revisions; `after` None is the working tree."""
    root = Path.cwd()
    one, two = read_revision(root, before), read_revision(root, after)
    return difference((one.name, one.cleaned, one.splits), (two.name, two.cleaned, two.splits))


def write_page(found: Difference, file: Path) -> None:
    """Write the difference as one HTML page."""
    ingest = load_params().ingest
    folders = source_folders(ingest, load_settings().home)
    write_text(file, render(found, folders, ingest.max_pixels))


def print_json(found: Difference) -> None:
    """Print the difference as JSON, every image of it; plainly, since that can be very many."""
    sys.stdout.write(json.dumps(found.as_json(), indent=2) + "\n")


def show_diff(found: Difference, console: Console, page: Path | None) -> None:
    """Print the difference for a person: counts with examples, then the classes that changed."""
    console.print(_numbers(found))
    if found.changes:
        console.print(_kinds(found))
        console.print(_classes(found))
    else:
        console.print("the same images, labels and splits")
    if page is not None:
        console.print(f"wrote {escape(str(page))}", soft_wrap=True)


def _numbers(found: Difference) -> Table:
    before, after = found.before, found.after
    table = Table("", escape(before.name), escape(after.name), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, field in _NUMBERS.items():
        table.add_row(name, *(f"{getattr(side, field):,}" for side in (before, after)))
    return table


def _kinds(found: Difference) -> Table:
    table = Table("", "images", "for example", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    table.columns[2].overflow = "fold"
    details = {"moved": found.moves(), "relabelled": found.relabellings()}
    for kind, count in found.counts.items():
        pairs = [f"{was} → {now} {number:,}" for was, now, number in details.get(kind, [])[:_PAIRS]]
        paths = [change.path for change in found.of_kind(kind)[:_PATHS]]
        table.add_row(TITLES[kind].lower(), f"{count:,}", escape("; ".join([*pairs, *paths])))
    return table


def _classes(found: Difference) -> Table:
    table = Table(
        "class",
        "before",
        "after",
        "added",
        "removed",
        "relabelled to",
        "from",
        box=None,
        pad_edge=False,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    changed = [one for one in found.classes if any(_parts(one)) or one.before != one.after]
    for one in changed[:_SHOWN]:
        numbers = (one.before, one.after, *_parts(one))
        table.add_row(escape(one.label), *(f"{number:,}" for number in numbers))
    if len(changed) > _SHOWN:
        table.add_row(f"and {len(changed) - _SHOWN} more")
    return table


def _parts(one: ClassChange) -> tuple[int, int, int, int]:
    return one.added, one.removed, one.relabelled_to, one.relabelled_from


def check_data(deed: Deed, jobs: int | None, as_json: bool, console: Console) -> int:
    """Verify the data, and repair or pull them; prints the result and gives the exit code."""
    root = Path.cwd()
    with exclusive(load_settings()), _progress(hidden=as_json) as hashed:
        if deed == "look":
            found = verify(root, jobs, hashed)
            result = Repaired(found, found, None)
        else:
            result = repair(root, deed == "pull", jobs, hashed)
    # What was never fetched is no damage, unless it was asked for.
    wrong = [one for one in result.remaining if deed != "look" or not one.missing]
    if as_json:
        console.print_json(data=_as_json(result, wrong))
    else:
        _show(deed, result, wrong, console)
    return 1 if wrong else 0


def _as_json(result: Repaired, wrong: list[Finding]) -> dict[str, Any]:
    found, remaining = (
        [asdict(one) | {"object": str(one.object)} for one in findings]
        for findings in (result.found, result.remaining)
    )
    return {"ok": not wrong, "found": found, "remaining": remaining, "reason": result.reason}


def _show(deed: Deed, result: Repaired, wrong: list[Finding], console: Console) -> None:
    damaged = one_a_file([one for one in result.found if not one.missing])
    absent = [one for one in result.found if one.missing and one.place == "cache"]
    if damaged:
        console.print(f"{_files(len(damaged))} not what dvc.lock names:")
        _list(damaged, console)
    if deed == "look":
        _show_look(damaged, absent, console)
    elif wrong:
        _show_remaining(result, wrong, console)
    else:
        mended = f"{len(damaged)} mended, {len(absent)} fetched"
        console.print(f"[green]all data are what dvc.lock names[/] ({mended})")


def _show_look(damaged: list[Finding], absent: list[Finding], console: Console) -> None:
    if damaged:
        console.print("`visionloop data verify --repair` brings back what dvc.lock names")
    else:
        console.print("[green]all data that are here are what dvc.lock names[/]")
    if absent:
        outputs = ", ".join(sorted({one.target for one in absent}))
        console.print(escape(f"not in the cache: {outputs}; `visionloop data pull` fetches them"))


def _show_remaining(result: Repaired, wrong: list[Finding], console: Console) -> None:
    why = f" ({result.reason})" if result.reason else ""
    console.print(f"[red]still wrong[/]: the remote has no sound copy{escape(why)}")
    _list(one_a_file(wrong), console)
    for way_out in dict.fromkeys(one.way_out for one in wrong):
        console.print(escape(way_out))


def _list(findings: list[Finding], console: Console) -> None:
    for one in findings[:_SHOWN]:
        console.print(escape(f"  {one}"), soft_wrap=True)
    if len(findings) > _SHOWN:
        console.print(f"  and {len(findings) - _SHOWN} more; --json lists all")


def _files(number: int) -> str:
    return "1 file is" if number == 1 else f"{number} files are"


@contextmanager
def _progress(hidden: bool) -> Iterator[Hashed]:
    """A bar on standard error while files are hashed."""
    bar = Progress(console=Console(stderr=True), transient=True, disable=hidden)
    with bar:
        task = bar.add_task("hashing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
