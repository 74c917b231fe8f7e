"""The audit trail of the aliases, and the intent that makes a change of them survive a crash.

<home>/audit.jsonl            one line a promotion or rollback that was completed
<home>/registry-intent.json   the change under way; whoever comes next completes it
MLflow has no transactions: a change is written down before the first step of it is taken, and
every step can be repeated.
"""

import getpass
import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from tasks.files import append_line, write_json
from tasks.params import Settings

Action = Literal["promote", "rollback"]


@dataclass(frozen=True)
class Change:
    """One change of the champion: `version` takes the place of `replaced`."""

    id: str
    time: str
    who: str
    action: Action
    version: int
    replaced: int | None
    reason: str


def new_change(action: Action, version: int, replaced: int | None, reason: str) -> Change:
    """A change as of now, by the user of this process."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return Change(uuid4().hex, time, who(), action, version, replaced, reason)


def read_intent(settings: Settings) -> Change | None:
    """The change that was begun and not completed, if any."""
    try:
        return Change(**json.loads(_intent(settings).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def write_intent(change: Change, settings: Settings) -> None:
    """Write down a change before its first step."""
    write_json(_intent(settings), asdict(change))


def complete(change: Change, settings: Settings) -> None:
    """Add the change to the trail, once, and forget the intent."""
    if all(entry.id != change.id for entry in history(settings)):
        append_line(_trail(settings), json.dumps(asdict(change)))
    _intent(settings).unlink(missing_ok=True)


def history(settings: Settings) -> list[Change]:
    """Every completed change, oldest first; a line torn by a crash is left out."""
    try:
        lines = _trail(settings).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    changes = []
    for line in lines:
        try:
            changes.append(Change(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return changes


def _trail(settings: Settings) -> Path:
    return settings.home / "audit.jsonl"


def _intent(settings: Settings) -> Path:
    return settings.home / "registry-intent.json"


def who() -> str:
    """The user of this process and the machine."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}@{socket.gethostname()}"
