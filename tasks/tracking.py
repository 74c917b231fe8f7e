"""The outbox of tracked runs: steps record here, tasks/registry/sync.py forwards it to MLflow.

<home>/tracking/<key>/events.jsonl   numbered events, append-only
<home>/tracking/<key>/files/         copies of the recorded files
Nothing here needs a server, so training never waits for a tracker and never fails with it.
A process killed in the middle of a line leaves a torn tail, which readers ignore and the next
writer overwrites; writers of one run exclude each other per event with a file lock.
"""

import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from tasks.files import atomic_write

if TYPE_CHECKING:
    from tasks.params import Settings

EVENTS, FILES = "events.jsonl", "files"
STATUSES = ("FINISHED", "FAILED", "KILLED")
_KEY = re.compile(r"[a-z0-9][a-z0-9-]*")
Event = dict[str, Any]
log = logging.getLogger(__name__)


class RunLog(Protocol):
    """What a step may record of a run; `Recorder` keeps it, `NoLog` drops it."""

    def params(self, values: Mapping[str, object]) -> None:
        """Record hyperparameters; nested mappings become dotted names."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record measurements, of the run or (with `step`) of one epoch or iteration."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record labels of the run."""

    def file(self, path: Path, folder: str = "") -> None:
        """Record a copy of the file as it is now, under `folder` (posix, relative)."""

    def dataset(self, name: str, digest: str, source: str, counts: Mapping[str, int]) -> None:
        """Record what the run was fed: images per split, and a digest of them all."""

    def finish(self, status: str = "FINISHED") -> None:
        """Record the end: FINISHED, FAILED or KILLED."""


class NoLog:
    """A RunLog that drops everything."""

    def params(self, values: Mapping[str, object]) -> None:
        """Drop hyperparameters."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Drop measurements."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Drop labels."""

    def file(self, path: Path, folder: str = "") -> None:
        """Drop a file."""

    def dataset(self, name: str, digest: str, source: str, counts: Mapping[str, int]) -> None:
        """Drop a data set."""

    def finish(self, status: str = "FINISHED") -> None:
        """Drop the end."""


class Recorder:
    """A RunLog kept on disk; any number of them, in any process, may record one run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._size, self._count = 0, 0  # of the events as this recorder last saw them

    def params(self, values: Mapping[str, object]) -> None:
        """Record hyperparameters; nested mappings become dotted names."""
        self._append({"type": "params", "values": _flat(values, "")})

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record measurements; the first record of a name at a step is the one that counts."""
        numbers = {name: float(value) for name, value in values.items()}
        self._append({"type": "metrics", "values": numbers, "step": step})

    def tags(self, values: Mapping[str, str]) -> None:
        """Record labels of the run; a later value replaces an earlier one."""
        self._append({"type": "tags", "values": {name: str(v) for name, v in values.items()}})

    def file(self, path: Path, folder: str = "") -> None:
        """Record a copy of the file as it is now; the same name again replaces it."""
        relative = (Path(folder) / path.name).as_posix()
        if os.path.isabs(relative) or ".." in relative.split("/"):
            raise ValueError(f"folder {folder!r} must be relative and inside the run")
        with open(path, "rb") as source, atomic_write(self.directory / FILES / relative) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        self._append({"type": "file", "path": relative})

    def dataset(self, name: str, digest: str, source: str, counts: Mapping[str, int]) -> None:
        """Record what the run was fed: images per split, and a digest of them all."""
        counted = {split: int(count) for split, count in counts.items()}
        self._append(
            {"type": "dataset", "name": name, "digest": digest, "source": source, "counts": counted}
        )

    def finish(self, status: str = "FINISHED") -> None:
        """Record the end and make everything so far durable."""
        if status not in STATUSES:
            raise ValueError(f"status {status!r} is none of {', '.join(STATUSES)}")
        self._append({"type": "finish", "status": status}, durable=True)

    def begin(self, name: str, parent: str | None, restart: bool) -> None:
        """Write the first event of a new run; with `restart`, of a finished one too."""
        first = {"type": "run", "name": name, "parent": parent, "generation": uuid4().hex}
        with _locked(self.directory / EVENTS) as descriptor:
            events, end = _complete(_read_all(descriptor))
            finished = any(event["type"] == "finish" for event in events)
            if restart and finished:
                shutil.rmtree(self.directory / FILES, ignore_errors=True)
                events, end = [], 0
            os.ftruncate(descriptor, end)
            self._size, self._count = end, len(events)
            if not events:
                self._write(descriptor, first)

    def _append(self, event: Event, durable: bool = False) -> None:
        with _locked(self.directory / EVENTS) as descriptor:
            if os.fstat(descriptor).st_size != self._size:  # another writer, or a torn tail
                events, self._size = _complete(_read_all(descriptor))
                self._count = len(events)
                os.ftruncate(descriptor, self._size)
            self._write(descriptor, event)
            if durable:
                os.fsync(descriptor)

    def _write(self, descriptor: int, event: Event) -> None:
        numbered = {"n": self._count, "time": time.time_ns() // 1_000_000, **event}
        line = (json.dumps(numbered, default=str) + "\n").encode()
        # A short write (full disk) leaves a torn tail for the next writer and raises here.
        written = os.pwrite(descriptor, line, self._size)
        if written < len(line):
            os.pwrite(descriptor, line[written:], self._size + written)
        self._size, self._count = self._size + len(line), self._count + 1


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open a file for reading and writing, with its exclusive lock.

    Opened anew each time: a lock on a shared descriptor would not exclude threads and forks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def open_run(
    key: str,
    name: str,
    parent: str | None = None,
    settings: "Settings | None" = None,
    *,
    restart: bool = False,
) -> Recorder:
    """The recorder of run `key` (lower-case letters, digits, hyphens), shown as `name`.

    A known run is appended to: a killed step goes on where it was, and later steps add to the
    training run. With `restart`, a run that had finished is started over. `parent` is the key
    of the run this one is nested in.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"run key {key!r} must be lower-case letters, digits and hyphens")
    recorder = Recorder(outbox(settings) / key)
    recorder.directory.mkdir(parents=True, exist_ok=True)
    recorder.begin(name, parent, restart)
    return recorder


def outbox(settings: "Settings | None" = None) -> Path:
    """The directory of all recorded runs."""
    if settings is None:
        from tasks.params import load_settings  # pydantic-settings: not on a bare GPU machine

        settings = load_settings()
    return settings.home / "tracking"


def read_events(directory: Path) -> list[Event]:
    """The whole events of a recorded run, in order; [] when there is none."""
    try:
        return _complete((directory / EVENTS).read_bytes())[0]
    except FileNotFoundError:
        return []


def _complete(data: bytes) -> tuple[list[Event], int]:
    """Parse the lines up to the first torn one; gives them and where they end, in bytes."""
    events: list[Event] = []
    end = 0
    for line in data.splitlines(keepends=True):
        try:
            event = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            event = None
        if not isinstance(event, dict) or event.get("n") != len(events):
            break
        events.append(event)
        end += len(line)
    return events, end


def _read_all(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _flat(values: Mapping[str, object], prefix: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
