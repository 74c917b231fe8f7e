"""Reads what the compress step leaves: data/candidates/candidates.json."""

import json
from pathlib import Path

from pydantic import ValidationError

from tasks.compression.candidates import Candidate, Results
from tasks.errors import CompressionError


class Candidates(Results):
    """candidates.json, and the directory it lies in."""

    directory: Path

    def named(self, name: str) -> Candidate:
        """The candidate of that name; raises CompressionError."""
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise CompressionError(f"{self.directory}/candidates.json names {name!r} but has no such")

    def file(self, name: str) -> Path:
        """The ONNX file of that candidate."""
        return self.directory / self.named(name).file


def read_candidates(directory: Path = Path("data/candidates")) -> Candidates:
    """Read candidates.json; raises CompressionError when it is missing or of another form."""
    path = directory / "candidates.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Candidates.model_validate({**values, "directory": directory})
    except FileNotFoundError:
        raise CompressionError(f"{path} does not exist; `dvc repro compress` builds it") from None
    except (ValidationError, ValueError, TypeError) as error:
        raise CompressionError(
            f"{path} is not a list of candidates ({error}); run `dvc repro --force compress`"
        ) from None
