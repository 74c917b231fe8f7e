"""The state of a running `visionloop up`, and the mark that finds all of its processes.

<home>/up.json is there while `up` runs. The mark is an environment variable that every
process of one `up` inherits, so that none can be lost: not one in a session of its own, and
not what is left of an `up` that was killed.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tasks.errors import ServiceError
from tasks.files import write_json
from tasks.params import Settings

MARK = "VISIONLOOP_UP"
_POLITE_SECONDS = 3


def state_file(settings: Settings) -> Path:
    """Where `visionloop up` keeps its state while it runs."""
    return settings.home / "up.json"


def write_state(
    settings: Settings, mark: str, addresses: Mapping[str, str], processes: Mapping[str, int]
) -> None:
    """Record this process as the `visionloop up` of its home."""
    state = {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "mark": mark,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "addresses": dict(addresses),
        "processes": dict(processes),
    }
    write_json(state_file(settings), state)


def running(settings: Settings) -> Mapping[str, Any] | None:
    """The state of the `visionloop up` that runs now on this home, or None."""
    state = _state(settings)
    if state is None:
        return None
    try:
        alive = psutil.Process(int(state["pid"])).create_time() == state["created"]
    except (psutil.Error, KeyError, ValueError):
        return None
    return state if alive else None


def ask_to_end(mark: str, but: Collection[int] = ()) -> list[psutil.Process]:
    """Send SIGTERM to every process that carries the mark, outside the process groups `but`."""
    asked = [process for process in _marked(mark) if _group(process.pid) not in but]
    for process in asked:
        _quietly(process.terminate)
    return asked


def end_marked(mark: str) -> None:
    """End every process that carries the mark: politely, then by force."""
    left = ask_to_end(mark)
    _, alive = psutil.wait_procs(left, timeout=_POLITE_SECONDS)
    for process in [*alive, *_marked(mark)]:
        _quietly(process.kill)
    psutil.wait_procs(alive, timeout=_POLITE_SECONDS)


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return


def clear_earlier(settings: Settings) -> None:
    """End what a killed `visionloop up` left behind; raises ServiceError when one still runs."""
    if state := running(settings):
        raise ServiceError(
            f"`visionloop up` already runs here (pid {state['pid']}); stop it first, "
            "or set VISIONLOOP_HOME to run another"
        )
    state = _state(settings)
    if state is not None and isinstance(state.get("mark"), str):
        end_marked(state["mark"])
    state_file(settings).unlink(missing_ok=True)


def _state(settings: Settings) -> dict[str, Any] | None:
    try:
        state = json.loads(state_file(settings).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None
