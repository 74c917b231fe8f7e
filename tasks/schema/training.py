"""The sections of training and compression."""

from typing import Literal

from pydantic import Field

from tasks.schema.section import Section, Share

Architecture = Literal[
    "resnet_small", "resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"
]


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
