"""The shapes of the server's JSON answers."""

from datetime import datetime

from pydantic import BaseModel, Field

from tasks.bundle import InputContract, Lineage, Measurements, Runtime
from tasks.decision import Decision
from tasks.schema import CalibrationMethod, OodScore


class Answer(BaseModel):
    """What the model says of one image."""

    filename: str
    label: str
    probability: float
    probabilities: dict[str, float] = Field(description="calibrated, by class")
    abstain: bool = Field(description="not sure enough: for a person to look at")
    prediction_set: list[str] = Field(description="the classes that are not ruled out, best first")
    ood_score: float | None = Field(description="higher is stranger; null: the model has none")
    strange: bool = Field(description="unlike the images that the model was trained on")


class Answers(BaseModel):
    """The answers to one request, in the order of its files."""

    model_version: int
    predictions: list[Answer]


class RefusedFile(BaseModel):
    """A file of the request, and what is wrong with it."""

    filename: str
    reason: str


class Problem(BaseModel):
    """Why a request was refused: no image of it was predicted or logged."""

    error: str
    files: list[RefusedFile] = []


class Health(BaseModel):
    """Whether the server is up, or ready to predict."""

    status: str
    reason: str | None = None
    model_version: int | None = None


class RefusedRelease(BaseModel):
    """A newer release that could not be loaded."""

    version: int | None
    reason: str


class ModelCard(BaseModel):
    """The model in service."""

    model_version: int
    bundle_digest: str
    loaded: datetime
    architecture: str
    technique: str
    classes: list[str]
    input: InputContract
    runtime: Runtime
    runs_on: str = Field(description="the runtime that is in use on this machine")
    temperature: float
    calibration: CalibrationMethod
    ood_score: OodScore | None
    decision: Decision | None
    measurements: Measurements
    lineage: Lineage
    refused: RefusedRelease | None
