"""The schema of conf/params.yaml: one frozen model per section, closed to unknown keys.

Values live in conf/params.yaml only: no scientific value has a default here.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Policy = Literal["keep", "flag", "drop", "quarantine"]
SplitName = Literal["train", "validation", "test"]
TorchvisionName = Literal[
    "CIFAR10",
    "CIFAR100",
    "DTD",
    "FGVCAircraft",
    "FashionMNIST",
    "Flowers102",
    "Food101",
    "GTSRB",
    "Imagenette",
    "KMNIST",
    "MNIST",
    "OxfordIIITPet",
    "PCAM",
    "STL10",
    "SVHN",
    "USPS",
]
Architecture = Literal[
    "resnet_small", "resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"
]


class Section(BaseModel):
    """A section of conf/params.yaml: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Source(Section):
    """What every source has."""

    path: str = Field(min_length=1, description="relative to the repository, or absolute")
    folder: str | None = Field(None, description="the folder in it that holds the data")
    labels: dict[str, str | None] = Field(
        default_factory=dict, description="label there: label here; several may merge; null drops"
    )
    split: SplitName | None = Field(None, description="of images whose source gives them none")


class FolderSource(_Source):
    """Class folders, or class folders in folders named train, val and test."""

    layout: Literal["folders", "split_folders"]


class TableSource(_Source):
    """A CSV or Parquet table with the columns path and label."""

    layout: Literal["table"]
    annotations: str = Field(min_length=1, description="the table, relative to path")


class BoxSource(_Source):
    """Boxes in a COCO file or in Pascal VOC files; each becomes an image."""

    layout: Literal["coco", "voc"]
    annotations: str = Field(description="the COCO file or the folder of XML files")
    margin: float = Field(ge=0, le=5, description="added on each side, as a share of the box's")


class TorchvisionSource(_Source):
    """A torchvision data set; its own test split is kept."""

    layout: Literal["torchvision"]
    dataset: TorchvisionName


Source = Annotated[
    FolderSource | TableSource | BoxSource | TorchvisionSource, Field(discriminator="layout")
]


class Ingest(Section):
    """Where the images are."""

    sources: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")], Source] = Field(
        min_length=1, description="name: where its images are and how they are laid out"
    )
    max_pixels: int = Field(ge=1, description="images with more pixels are refused unread")
    max_archive_files: int = Field(ge=1, description="an archive with more is refused")
    max_archive_gb: float = Field(gt=0, description="an archive that unpacks to more is refused")
    backend: Literal["processes", "dask"] = Field(
        description="where images are decoded: on this machine, or on a Dask cluster"
    )

    @property
    def origin(self) -> str:
        """Where the images are from, in words."""
        return ", ".join(source.path for source in self.sources.values())


class CleanPolicy(Section):
    """What to do with an image that a detector finds.

    keep: nothing, not even a flag; flag: say so; quarantine: leave out until somebody decides
    (`visionloop data review`); drop: leave out.
    """

    unreadable: Literal["drop"] = Field(description="broken, truncated, empty or no image at all")
    exact_duplicate: Policy = Field(description="the same pixels as an earlier image")
    conflicting_label: Policy = Field(description="a duplicate of an image with another label")
    near_duplicate: Policy = Field(description="almost the same picture as an earlier image")
    too_small: Policy = Field(description="shorter side below clean.min_side")
    odd_size: Policy = Field(description="far larger or smaller than the others")
    odd_aspect_ratio: Policy = Field(description="far wider or narrower than the others")
    dark: Policy = Field(description="brightness below clean.dark")
    bright: Policy = Field(description="brightness above clean.bright")
    low_contrast: Policy = Field(description="contrast below clean.low_contrast")
    blurry: Policy = Field(description="sharpness below clean.blurry")
    low_information: Policy = Field(description="entropy below clean.low_information")
    wrong_mode: Policy = Field(description="grey among coloured images, or coloured among grey")
    outlier: Policy = Field(description="statistics far from those of its class")


class Clean(Section):
    """Thresholds of the detectors, and the policy for each."""

    min_side: int = Field(ge=1, description="pixels of the shorter side")
    odd_size: float = Field(gt=1, description="times the median size (root of the area), or below")
    odd_aspect_ratio: float = Field(gt=1, description="times the median width / height, or below")
    dark: Share = Field(description="mean brightness below this is dark")
    bright: Share = Field(description="mean brightness above this is bright")
    low_contrast: Share = Field(description="standard deviation of brightness")
    blurry: float = Field(ge=0, description="sharpness below this is blurry")
    low_information: Share = Field(description="entropy of the grey values, 1: all equally often")
    wrong_mode: Share = Field(description="share of the set that is grey (or coloured) like it")
    outlier: float = Field(gt=0, description="modified z-score within the class")
    near_duplicate_similarity: Share = Field(
        description="aligned thumbnails whose details correlate this much are near-duplicates"
    )
    near_duplicate_flip: bool = Field(description="left-right mirrored copies count too")
    policy: CleanPolicy


class Validate(Section):
    """What conf/expectations/*.yaml ask for; null leaves an expectation out."""

    min_classes: int = Field(ge=2, description="classes that must be there")
    min_per_class: int = Field(ge=3, description="images that each class must keep")
    min_per_split: int = Field(ge=1, description="images of each class in each split")
    max_imbalance: float | None = Field(ge=1, description="largest class over the smallest")
    min_side: int = Field(ge=1, description="pixels of the shorter side")
    max_side: int = Field(ge=1, description="pixels of the longer side")
    min_readable_share: Share = Field(description="files that can be read, of all")
    max_flagged_share: Share = Field(description="images with any flag, of all")
    max_duplicate_share: Share = Field(description="exact and near-duplicates, of all")
    max_drift: float | None = Field(
        ge=0, le=1, description="KS distance of an image statistic from the last release's"
    )
    labels: list[str] | None = Field(description="the declared label set; null: any")


class Split(Section):
    """Shares of the splits; the rest is training."""

    validation: float = Field(gt=0, lt=1, description="share of the images")
    test: float = Field(gt=0, lt=1, description="share of the images")
    seed: int = Field(ge=0, description="another seed, another split")
    folds: int | None = Field(ge=2, le=100, description="of cross-validation; null: none")

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave a share for training")
        return self


class Unchanged(Section):
    """No domain normalisation."""

    method: Literal["none"]


class Percentile(Section):
    """Stretch the intensities between two percentiles of the image to 0..255."""

    method: Literal["percentile"]
    low: float = Field(ge=0, lt=50)
    high: float = Field(gt=50, le=100)


class ZScore(Section):
    """Mean to mid-grey, standard deviation to a number of grey levels."""

    method: Literal["zscore"]
    spread: float = Field(gt=0, le=127, description="grey levels of one standard deviation")


class Clahe(Section):
    """Contrast-limited adaptive histogram equalisation of the luminance."""

    method: Literal["clahe"]
    clip: float = Field(ge=1, le=100, description="largest bin, in multiples of the average")
    tiles: int = Field(ge=1, le=64, description="a side")


Normalisation = Annotated[Unchanged | Percentile | ZScore | Clahe, Field(discriminator="method")]


class Prepare(Section):
    """How an image becomes pixels of the training size, and how they are packed."""

    size: int = Field(ge=8, le=1024, description="side in pixels")
    resize: Literal["stretch", "letterbox", "crop"]
    margin: int = Field(
        ge=0,
        le=512,
        description="of crop: the shorter side becomes size + margin; the middle is served, "
        "training takes a new random part in every epoch",
    )
    colour: Literal["rgb", "grey"]
    normalise: Normalisation
    max_raw_gb: float = Field(
        ge=0, description="gigabytes of pixels that are packed raw; more are packed encoded"
    )
    train_jpeg_quality: int | None = Field(
        ge=50,
        le=100,
        description="of training images packed encoded; null: lossless, as the others always are",
    )

    @model_validator(mode="after")
    def _margin_is_of_crop(self) -> Self:
        if self.margin and self.resize != "crop":
            raise ValueError(f"margin {self.margin} needs resize crop; set it to 0")
        return self

    @model_validator(mode="after")
    def _tiles_hold_pixels(self) -> Self:
        if isinstance(self.normalise, Clahe) and 4 * self.normalise.tiles > self.size:
            raise ValueError(
                f"{self.normalise.tiles} tiles a side leave fewer than 4 of {self.size} pixels "
                f"each; take at most {self.size // 4}"
            )
        return self


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
