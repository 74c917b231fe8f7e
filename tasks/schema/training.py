"""The sections of the sweep, training and compression."""

from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tasks.schema.section import Section, Share

Architecture = Literal[
    "resnet_small",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_v2_s",
    "convnext_tiny",
    "convnext_small",
    "vit_b_16",
    "vit_b_32",
]
Activation = Literal[
    "default", "relu", "leaky_relu", "silu", "gelu", "hardswish", "tanh", "sigmoid"
]


class _Interval(Section):
    """What a range of numbers has, real or whole."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("low must not exceed high, and must be positive when log is true")
        return self


class FloatRange(_Interval):
    """A real hyperparameter's search range."""

    type: Literal["float"]


class IntRange(_Interval):
    """A whole-number hyperparameter's search range."""

    type: Literal["int"]
    low: int
    high: int


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


class Finetune(Section):
    """How a network that starts from weights is tuned; see docs/training.md."""

    freeze: Annotated[int, Field(ge=0)] | str = Field(
        description="stages from the input that stay as they are: how many, the name of the last, "
        "or all (a linear probe)"
    )
    unfreeze_every: int = Field(
        ge=0, description="epochs after which one more stage is freed, the last first; 0: never"
    )
    layer_decay: float = Field(
        gt=0, le=1, description="the rate of each stage as a share of the next one's; 1: one rate"
    )
    freeze_norm: bool = Field(description="batch norms keep the statistics they came with")

    @property
    def frozen(self) -> bool:
        """Whether anything stays as it was."""
        return self.freeze_norm or self.freeze != 0


class Train(Section):
    """The model and its optimisation."""

    architecture: Architecture
    width: int = Field(ge=4, le=512, description="channels of resnet_small's first stage")
    depth: int = Field(ge=1, le=8, description="blocks per stage of resnet_small")
    activation: Activation = Field(description="default: the architecture's own")
    dropout: float | None = Field(
        ge=0, lt=1, description="of the embedding, before the head; null: the architecture's own"
    )
    stochastic_depth: float | None = Field(
        ge=0,
        lt=1,
        description="how often the last residual branch is left out, the earlier ones less; "
        "null: the architecture's own",
    )
    weights: str | None = Field(
        min_length=1,
        description="to start from: null (random), imagenet (torchvision's), or the path of a "
        "model directory, a bundle, a checkpoint or a safetensors file",
    )
    finetune: Finetune
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

    @field_validator("weights")
    @classmethod
    def _kept(cls, weights: str | None) -> str | None:
        parts = PurePath(weights or "").parts[:2]
        if parts in (("data", "model"), ("data", "bundle")):
            raise ValueError(
                f"{'/'.join(parts)} is replaced by the run itself; copy it first: "
                f"`cp -r {'/'.join(parts)} pretrained`, and give pretrained"
            )
        return weights

    @model_validator(mode="after")
    def _tunable(self) -> Self:
        given = self.finetune
        if self.weights is None and given.frozen:
            what = "freeze_norm" if given.freeze_norm else f"freeze {given.freeze}"
            raise ValueError(
                f"finetune.{what} needs weights to start from: random ones would never learn"
            )
        if given.freeze != 0 and given.unfreeze_every > self.patience:
            raise ValueError(
                f"finetune.unfreeze_every {given.unfreeze_every} exceeds patience {self.patience}: "
                "early stopping could end the run before a stage is freed"
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
