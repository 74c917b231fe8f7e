"""Reads what the compress step leaves: data/candidates/candidates.json."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import CompressionError


class Candidate(BaseModel):
    """One exported model. Accuracy and agreement (with fp32) are on validation images."""

    model_config = ConfigDict(frozen=True)

    name: str
    technique: str
    file: str
    parameters: int
    accuracy: float
    agreement: float
    latency_ms: float
    size_bytes: int
    verdict: str
    reason: str


class Candidates(BaseModel):
    """candidates.json, and the directory it lies in."""

    model_config = ConfigDict(frozen=True)

    directory: Path
    chosen: str
    reason: str
    fp32: str
    eager_fp32_latency_ms: float
    candidates: list[Candidate]

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
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CompressionError(f"{path} does not exist; `dvc repro compress` builds it") from None
    try:
        return Candidates.model_validate(_with_directory(text, directory))
    except ValidationError as error:
        raise CompressionError(f"{path} is not a list of candidates: {error}") from None


def _with_directory(text: str, directory: Path) -> dict[str, object]:
    import json

    return {**json.loads(text), "directory": directory}
