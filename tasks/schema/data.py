"""The sections of the data steps: ingest, clean, validate, split, prepare."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.schema.section import Section, Share
from tasks.schema.sources import Source

Policy = Literal["keep", "flag", "drop", "quarantine"]


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
