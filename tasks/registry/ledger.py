"""What of the outbox has reached MLflow: one small file beside each run. Needs no MLflow.

<home>/tracking/<key>/sent.json   by store: the generation of the run, its MLflow id, and how
                                  many events were sent
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.files import write_json
from tasks.params import Settings
from tasks.tracking import EVENTS, outbox

SENT = "sent.json"


@dataclass(frozen=True)
class Mark:
    """How far a run has been forwarded to one store."""

    generation: str
    run_id: str
    sent: int


def runs(settings: Settings) -> Iterator[Path]:
    """The directories of the recorded runs, parents before what is nested in them."""
    yield from (path.parent for path in sorted(outbox(settings).glob(f"*/{EVENTS}")))


def read_mark(directory: Path, store: str) -> Mark | None:
    """How far the run has been forwarded to `store`; None when nothing was or is known."""
    entry = _read(directory).get(store)
    return None if entry is None else Mark(**entry)


def write_mark(directory: Path, store: str, mark: Mark) -> None:
    """Remember how far the run has been forwarded to `store`."""
    write_json(directory / SENT, _read(directory) | {store: asdict(mark)})


def _read(directory: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / SENT).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}
