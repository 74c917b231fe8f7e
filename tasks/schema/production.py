"""The sections of evidence and production: budget, evaluate, gate, serve, drift."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.schema.explanation import Adversarial, Explanation
from tasks.schema.ood import OutOfDistribution
from tasks.schema.section import Section, Share

CalibrationMethod = Literal["temperature", "vector", "isotonic"]
Effect = Literal["block", "warn"]


class Budget(Section):
    """What may be deployed; null means no limit."""

    max_accuracy_drop: Share
    min_agreement: Share
    max_latency_ms: float | None = Field(gt=0)
    max_size_mb: float | None = Field(gt=0, description="megabytes of the ONNX file")
    max_memory_mb: float | None = Field(
        gt=0, description="megabytes at the peak, of a process that runs only this model"
    )
    otherwise: Literal["fail", "fp32"] = Field(
        description="when nothing keeps the budget: stop, or go on with the fp32 export"
    )


class Robustness(Section):
    """Accuracy on test images that something has happened to."""

    enabled: bool = Field(description="whether it is measured at all")
    images: int = Field(ge=1, description="of the test split, at most")


ATTRIBUTES = (
    *("class", "source", "group", "mode", "width", "height", "megapixels", "aspect_ratio"),
    *("brightness", "contrast", "sharpness", "saturation"),
)


class Slices(Section):
    """Parts of the test images on which the model does worse."""

    enabled: bool = Field(description="whether they are searched at all")
    min_images: int = Field(ge=10, description="of a slice; smaller ones are not looked at")
    depth: int = Field(ge=1, le=2, description="attributes that make a slice, at most")
    groups: list[str] = Field(
        description="attributes or metadata columns whose values are compared with each other"
    )


class Abstention(Section):
    """When the model leaves an image to a person; at most one of the two is set."""

    coverage: float | None = Field(
        gt=0, le=1, description="share of images that must be answered; null: not asked for"
    )
    risk: float | None = Field(
        gt=0, lt=1, description="share of wrong answers among those given, at most; null: not asked"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.coverage is not None and self.risk is not None:
            raise ValueError("evaluate.abstention: set coverage or risk, the other one to null")
        return self


class Card(Section):
    """What only a person can say, for the model card; null: it says that nobody has."""

    intended_use: str | None = Field(description="what the model is for, in a sentence or more")
    out_of_scope: str | None = Field(description="what it must not be used for")
    grid_g_co2_per_kwh: float | None = Field(
        gt=0, description="of the electricity that trains; null: no emissions are stated"
    )


class Evaluate(Section):
    """The evidence on the frozen test split."""

    resamples: int = Field(ge=100)
    confidence: float = Field(gt=0.5, lt=1, description="level of the intervals")
    calibration: Literal["auto", "temperature", "vector", "isotonic"] = Field(
        description="how probabilities are mended; auto: by cross-validation on validation images"
    )
    calibration_bins: int = Field(ge=2, le=100, description="of equal mass")
    worst_mistakes: int = Field(ge=0, le=200, description="shown in the report")
    license: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        description="of the model, a Hugging Face licence identifier, for the model card",
    )
    card: Card
    abstention: Abstention
    set_coverage: float = Field(
        gt=0.5, lt=1, description="how often prediction sets hold the true class"
    )
    robustness: Robustness
    slices: Slices
    explanation: Explanation
    adversarial: Adversarial
    ood: OutOfDistribution
    seed: int = Field(ge=0, description="of the bootstrap and of all that is drawn")


class OnFailure(Section):
    """What follows when a rule of the gate fails, or cannot be evaluated though it has a limit."""

    accuracy: Effect = Field(description="not worse than the champion by more than gate.margin")
    recall: Effect = Field(description="of no class falls by more than gate.max_recall_drop")
    recall_floor: Effect = Field(description="of every class at least gate.min_recall")
    slice: Effect = Field(description="the worst one has at least gate.min_slice_accuracy")
    robustness: Effect = Field(description="gate.max_corruption_error_rise")
    calibration: Effect = Field(description="gate.max_calibration_error")
    latency: Effect = Field(description="budget.max_latency_ms")
    size: Effect = Field(description="budget.max_size_mb")
    memory: Effect = Field(description="budget.max_memory_mb")
    looks: Effect = Field(description="gate.max_looks")


class Gate(Section):
    """When a challenger may replace the champion; null means no limit."""

    margin: Share
    max_recall_drop: Share
    min_recall: float | None = Field(ge=0, le=1, description="recall of every class, at least")
    min_slice_accuracy: float | None = Field(
        ge=0, le=1, description="accuracy of the worst slice, at least"
    )
    max_corruption_error_rise: float | None = Field(
        ge=0, le=1, description="of the mean corruption error, against the champion"
    )
    max_calibration_error: float | None = Field(
        ge=0, le=1, description="expected calibration error, at most"
    )
    max_looks: int | None = Field(
        ge=1, description="decisions on the same test images before they should be renewed"
    )
    on_failure: OnFailure
    resamples: int = Field(ge=100, description="of the paired bootstrap")
    confidence: float = Field(gt=0.5, lt=1, description="of the lower bound, one-sided")
    seed: int = Field(ge=0, description="of the bootstrap")


class Serve(Section):
    """Limits of the model server."""

    max_batch: int = Field(ge=1, le=1024, description="images run together")
    max_wait_ms: float = Field(ge=0, description="how long a batch waits to fill")
    max_images: int = Field(ge=1, description="files in one request")
    max_upload_mb: float = Field(gt=0, description="megabytes of one request")
    max_queue: int = Field(ge=1, description="images being answered; more are answered 503")

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.max_queue < self.max_images:
            raise ValueError("max_queue must be at least max_images, or a full request never fits")
        return self


class Drift(Section):
    """The nightly check."""

    window_hours: float = Field(gt=0, description="how far back predictions are read")
    min_predictions: int = Field(ge=30, description="fewer are no basis for a decision")
    alpha: float = Field(gt=0, lt=0.5, description="family-wise error rate")
    min_effect: Share = Field(description="smallest KS distance of interest")
    cooldown_hours: float = Field(ge=0)
