"""The sections of training and compression."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tasks.schema.augmentation import Augment, Imbalance
from tasks.schema.section import Section, Share

Architecture = Literal[
    "resnet_small", "resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"
]


class Train(Section):
    """The model and its optimisation."""

    architecture: Architecture
    width: int = Field(ge=4, le=512, description="channels of resnet_small's first stage")
    depth: int = Field(ge=1, le=8, description="blocks per stage of resnet_small")
    pretrained: bool
    epochs: int = Field(ge=1, description="at most; see patience")
    batch_size: int = Field(ge=2, description="images at a time")
    accumulate: int = Field(ge=1, description="batches whose gradients make one step")
    optimizer: Literal["sgd", "adamw"]
    lr: float = Field(gt=0, le=10, description="highest learning rate of the schedule")
    schedule: Literal["one_cycle", "cosine", "step", "plateau", "constant"]
    warmup: float = Field(ge=0, lt=1, description="share of the steps in which the rate rises")
    milestones: list[Share] = Field(description="of step: shares of the steps at which it falls")
    decay: float = Field(gt=0, lt=1, description="of step and plateau: the rate is multiplied by")
    plateau_patience: int = Field(
        ge=1, description="of plateau: epochs without a better validation loss"
    )
    momentum: float = Field(ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(ge=0, le=1, description="L2 penalty, decoupled for adamw")
    label_smoothing: float = Field(
        ge=0, lt=1, description="share of the target spread over all classes"
    )
    grad_clip: float = Field(gt=0, description="largest gradient norm")
    ema: float = Field(
        ge=0, lt=1, description="decay, per step, of the averaged weights that are kept; 0: none"
    )
    precision: Literal["fp32", "bf16", "fp16"]
    compile: bool
    patience: int = Field(ge=1, description="epochs without a better validation loss")
    seed: int = Field(ge=0, description="of initialisation, order and augmentation")
    device: Literal["auto", "cpu", "cuda"]
    on_divergence: Literal["stop", "step_back"]
    log_steps: int = Field(ge=1, description="steps from one record of loss, rate, ... to the next")
    checkpoint_seconds: float = Field(
        gt=0, description="from one checkpoint within an epoch to the next, at least"
    )
    devices: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        description="processes that train together; auto: one a GPU, or one on the CPU"
    )
    augment: Augment
    imbalance: Imbalance

    def deciding(self) -> dict[str, Any]:
        """The values, JSON-able, that decide the weights: all but when to record and save."""
        return self.model_dump(mode="json", exclude={"log_steps", "checkpoint_seconds"})


class CrossValidate(Section):
    """Training on all folds but one, each in turn; the folds are those of split.folds."""

    enabled: bool = Field(
        description="whether it is done: it takes as long as split.folds trainings"
    )
    confidence: float = Field(gt=0.5, lt=1, description="level of the t intervals over the folds")


class Ensemble(Section):
    """Several networks as one, to learn from in distillation."""

    kind: Literal["none", "vote", "soup"] = Field(
        description="vote averages probabilities, soup the weights (of trials only)"
    )
    size: int = Field(ge=2, le=64, description="the best so many are members, or tried as such")
    of: Literal["trials", "folds"] = Field(description="of tune, or of cross_validate")

    @model_validator(mode="after")
    def _soup_is_of_trials(self) -> Self:
        if self.kind == "soup" and self.of == "folds":
            raise ValueError(
                "kind soup needs of: trials; every image outside the test split was trained on "
                "by some fold, so nothing could tell whether averaging helps"
            )
        return self


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
