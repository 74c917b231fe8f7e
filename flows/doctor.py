"""`visionloop doctor`: what is wrong with this machine and repository, and how to mend it."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.doctor_machine import MACHINE, Check
from flows.doctor_repository import REPOSITORY
from tasks.errors import VisionloopError
from tasks.params import load_settings

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def examine() -> list[Check]:
    """Run every check in the current directory, the root of a repository."""
    try:
        settings = load_settings()
    except VisionloopError as error:
        return [Check("settings", "fail", str(error), "mend the variable, then run this again")]
    return [found for check in MACHINE + REPOSITORY for found in check(settings)]


def report(checks: list[Check]) -> dict[str, Any]:
    """The checks as plain values: {"ok": bool, "checks": [...]}."""
    healthy = all(check.status != "fail" for check in checks)
    return {"ok": healthy, "checks": [asdict(check) for check in checks]}


def show(checks: list[Check], console: Console) -> None:
    """Print a line a check, and under each that is not ok, how to mend it."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(width=4)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark = f"[{_COLOURS[check.status]}]{check.status}[/]"
        table.add_row(mark, check.name, _escaped(check.found))
        if check.mend:
            table.add_row("", "", f"[bold]→ {_escaped(check.mend)}[/]")
    console.print(table)
    count = sum(check.status == "fail" for check in checks)
    console.print(f"[red]{count} failed[/]" if count else "[green]nothing is broken[/]")


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
