"""What a compression has built so far, so that one that was killed goes on where it was."""

import json
import logging
import time

from pydantic import TypeAdapter, ValidationError

from tasks.compression.candidates import Absent, Candidate
from tasks.compression.context import Context
from tasks.compression.networks import Plan
from tasks.files import sha256, sha256_json, write_json

_ROWS = TypeAdapter(list[Candidate])
_CLOCK = "seconds.json"
log = logging.getLogger(__name__)


class Finished:
    """Candidates by network, and the time that all runs of this compression took together."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._before = self._recorded_seconds()
        self._started = time.monotonic()

    def load(self, plan: Plan) -> list[Candidate | Absent] | None:
        """What was built of a network, if it was all there is and its files are still whole."""
        path = self.context.work / f"{plan.name}.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            rows = _ROWS.validate_python(record["candidates"])
            whole = all(sha256(self.context.folder / f) == h for f, h in record["files"].items())
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None
        if record["settings"] != self._settings() or not whole:
            return None
        log.info("%s went on from what was built before", plan.name)
        return list(rows)

    def save(self, plan: Plan, found: list[Candidate | Absent]) -> None:
        """Keep what was built, unless something of it failed: that is tried again."""
        candidates = [row for row in found if isinstance(row, Candidate)]
        if len(candidates) == len(found):
            files = {row.file for row in candidates}
            record = {
                "settings": self._settings(),
                "candidates": [row.model_dump() for row in candidates],
                "files": {file: sha256(self.context.folder / file) for file in sorted(files)},
            }
            write_json(self.context.work / f"{plan.name}.json", record)
        write_json(self.context.work / _CLOCK, self._seconds())

    def has_time(self) -> bool:
        """Whether compress.minutes have not passed; what a kill cut off is not counted."""
        minutes = self.context.params.minutes
        return minutes is None or self._seconds() < 60 * minutes

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def _recorded_seconds(self) -> float:
        try:
            return float((self.context.work / _CLOCK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0

    def _settings(self) -> str:
        """What the graphs depend on beside the networks, which have a folder for each setting."""
        budget = self.context.budget
        limits = budget and [budget.max_accuracy_drop, budget.min_agreement]
        quantize = self.context.params.quantize.model_dump()
        return sha256_json([limits, self.context.runtimes, quantize])
