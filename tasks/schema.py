"""The schema of conf/params.yaml: one frozen model per section, closed to unknown keys.

Values live in conf/params.yaml only: no scientific value has a default here.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Policy = Literal["drop", "keep"]
Architecture = Literal[
    "resnet_small", "resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"
]


class Section(BaseModel):
    """A section of conf/params.yaml: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Ingest(Section):
    """Where the images are."""

    path: str = Field(
        min_length=1, description="folder of class folders, relative to the repository or absolute"
    )
    max_pixels: int = Field(ge=1, description="images with more pixels are refused unread")


class CleanPolicy(Section):
    """What to do with an image that carries a flag."""

    unreadable: Literal["drop"] = Field(description="broken, truncated, empty or no image at all")
    exact_duplicate: Policy = Field(description="the same pixels as an earlier image")
    conflicting_label: Policy = Field(description="the same pixels under another label")
    near_duplicate: Policy = Field(description="almost the same picture as an earlier image")
    too_small: Policy = Field(description="shorter side below clean.min_side")
    dark: Policy = Field(description="brightness below clean.dark")
    bright: Policy = Field(description="brightness above clean.bright")
    blurry: Policy = Field(description="sharpness below clean.blurry")


class Clean(Section):
    """Thresholds of the detectors, and the policy for each."""

    min_side: int = Field(ge=1, description="pixels of the shorter side")
    dark: Share = Field(description="mean brightness below this is dark")
    bright: Share = Field(description="mean brightness above this is bright")
    blurry: float = Field(ge=0, description="sharpness below this is blurry")
    near_duplicate_similarity: Share = Field(
        description="aligned thumbnails whose details correlate this much are near-duplicates"
    )
    near_duplicate_flip: bool = Field(description="left-right mirrored copies count too")
    policy: CleanPolicy


class Validate(Section):
    """Expectations on the cleaned manifest."""

    min_classes: int = Field(ge=2, description="classes that must be there")
    min_per_class: int = Field(ge=3, description="images that each class must keep")
    min_side: int = Field(ge=1, description="pixels of the shorter side")
    max_side: int = Field(ge=1, description="pixels of the longer side")
    max_flagged_share: Share = Field(description="images with any flag, of all")
    labels: list[str] | None = Field(description="the declared label set; null: any")


class Split(Section):
    """Shares of the splits; the rest is training."""

    validation: float = Field(gt=0, lt=1, description="share of the images")
    test: float = Field(gt=0, lt=1, description="share of the images")
    seed: int = Field(ge=0, description="another seed, another split")

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave a share for training")
        return self


class Prepare(Section):
    """How an image becomes pixels of the training size."""

    size: int = Field(ge=8, le=1024, description="side in pixels")
    resize: Literal["stretch", "letterbox"]


class FloatRange(Section):
    """A real hyperparameter's search range."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("low must not exceed high, and must be positive when log is true")
        return self


class IntRange(Section):
    """A whole-number hyperparameter's search range."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("low must not exceed high, and must be positive when log is true")
        return self


class Choices(Section):
    """A categorical hyperparameter's choices."""

    type: Literal["categorical"]
    choices: list[str | int | float | bool] = Field(min_length=1)


Range = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]


class Tune(Section):
    """The sweep over training hyperparameters."""

    trials: int = Field(ge=1, description="trials of the sweep")
    minutes: float = Field(gt=0)
    epochs: int = Field(ge=1, description="of each trial")
    seed: int = Field(ge=0, description="of the sampler")
    pruner: Literal["median", "hyperband", "none"]
    space: dict[str, Range] = Field(description="dotted keys of the train section")


class Augment(Section):
    """Random changes of the training images; 0 or false turns one off."""

    flip: bool
    shift: float = Field(ge=0, le=0.5, description="share of the side")
    rotate: float = Field(ge=0, le=180, description="degrees")
    scale: float = Field(ge=0, lt=1, description="share")
    brightness: float = Field(ge=0, lt=1, description="share")
    contrast: float = Field(ge=0, lt=1, description="share")


class Train(Section):
    """The model and its optimisation."""

    architecture: Architecture
    width: int = Field(ge=4, le=512, description="channels of resnet_small's first stage")
    depth: int = Field(ge=1, le=8, description="blocks per stage of resnet_small")
    pretrained: bool
    epochs: int = Field(ge=1, description="at most; see patience")
    batch_size: int = Field(ge=2, description="images a step")
    optimizer: Literal["sgd", "adamw"]
    lr: float = Field(gt=0, le=10, description="highest rate of the one-cycle schedule")
    momentum: float = Field(ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(ge=0, le=1, description="L2 penalty, decoupled for adamw")
    label_smoothing: float = Field(
        ge=0, lt=1, description="share of the target spread over all classes"
    )
    grad_clip: float = Field(gt=0, description="largest gradient norm")
    patience: int = Field(ge=1, description="epochs without a better validation loss")
    seed: int = Field(ge=0, description="of initialisation, order and augmentation")
    device: Literal["auto", "cpu", "cuda"]
    augment: Augment


class Distil(Section):
    """Knowledge distillation into a smaller student."""

    width: int = Field(ge=4, le=512)
    epochs: int = Field(ge=1, description="of the student")
    temperature: float = Field(gt=0, description="softens the teacher's probabilities")
    alpha: Share = Field(description="weight of the teacher's soft targets")


class Prune(Section):
    """Structured pruning with fine-tuning."""

    ratio: float = Field(gt=0, lt=1, description="share of the channels removed")
    epochs: int = Field(ge=1, description="of fine-tuning after pruning")
    lr: float = Field(gt=0, le=10, description="highest rate of the fine-tuning")


class Quantize(Section):
    """Static int8 quantization."""

    calibration_images: int = Field(ge=1, description="of the training split")


class Compress(Section):
    """The candidates that are built and measured."""

    distil: Distil
    prune: Prune
    quantize: Quantize
    latency_runs: int = Field(ge=10, description="timed runs per candidate, interleaved")
    seed: int = Field(ge=0, description="of the student and the fine-tuning")


class Budget(Section):
    """What may be deployed; null means no limit."""

    max_accuracy_drop: Share
    min_agreement: Share
    max_latency_ms: float | None = Field(gt=0)
    max_size_mb: float | None = Field(gt=0, description="megabytes of the ONNX file")


class Evaluate(Section):
    """The evidence on the frozen test split."""

    resamples: int = Field(ge=100)
    confidence: float = Field(gt=0.5, lt=1, description="level of the intervals")
    calibration_bins: int = Field(ge=2, le=100, description="of equal mass")
    worst_mistakes: int = Field(ge=0, le=200, description="shown in the report")
    license: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        description="of the model, a Hugging Face licence identifier, for the model card",
    )
    seed: int = Field(ge=0, description="of the bootstrap")


class Gate(Section):
    """When a challenger may replace the champion."""

    margin: Share
    max_recall_drop: Share
    resamples: int = Field(ge=100, description="of the paired bootstrap")
    confidence: float = Field(gt=0.5, lt=1, description="level of the lower bound")
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


class Params(Section):
    """The whole of conf/params.yaml."""

    ingest: Ingest
    clean: Clean
    validate_: Validate = Field(alias="validate")
    split: Split
    prepare: Prepare
    tune: Tune
    train: Train
    compress: Compress
    budget: Budget
    evaluate: Evaluate
    gate: Gate
    serve: Serve
    drift: Drift
