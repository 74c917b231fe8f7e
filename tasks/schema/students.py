"""The sections of networks that learn from the trained one: distil and prune."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.schema.architectures import Architecture
from tasks.schema.section import Section, Share


class Distil(Section):
    """Knowledge distillation: how the student and the pruned network learn, and the student."""

    architecture: Architecture = Field(description="of the student")
    width: int = Field(ge=4, le=512, description="of the student, if it is resnet_small")
    depth: int = Field(ge=1, le=8, description="of the student, if it is resnet_small")
    method: Literal["soft_targets", "decoupled", "features"] = Field(
        description="what of the teacher is learnt: its probabilities, those of the label's class "
        "and of the others apart, or its probabilities and its embedding"
    )
    epochs: int = Field(ge=1, description="of the student")
    patient: int = Field(
        ge=1, description="times as many epochs, and as many without a better validation loss"
    )
    temperature: float = Field(gt=0, description="softens the teacher's probabilities")
    alpha: Share = Field(description="weight of what the teacher says; the labels have the rest")
    beta: float = Field(
        ge=0, description="weight of decoupled's other classes, or of features' embedding"
    )


class Prune(Section):
    """Structured pruning with fine-tuning under distillation."""

    importance: Literal["magnitude", "batch_norm_scale", "taylor"] = Field(
        description="which channels leave first: those of the smallest weights, of the smallest "
        "batch-norm scales, or whose leaving changes the training loss least"
    )
    scope: Literal["layer", "global"] = Field(
        description="the same share of every layer, or the least important of the whole network"
    )
    target: Literal["channels", "macs", "parameters", "latency"] = Field(
        description="what ratio is a share of; latency is measured, in ONNX Runtime at batch 1"
    )
    ratio: float = Field(gt=0, lt=1, description="share of the target that is removed, at least")
    steps: int = Field(ge=1, description="parts in which it is removed, each fine-tuned")
    epochs: int = Field(ge=1, description="of fine-tuning, all steps together")
    lr: float = Field(gt=0, le=10, description="highest rate of the fine-tuning")

    @model_validator(mode="after")
    def _every_step_is_tuned(self) -> Self:
        if self.steps > self.epochs:
            raise ValueError(
                f"steps {self.steps} exceeds epochs {self.epochs}: every step needs an epoch of "
                "fine-tuning"
            )
        return self
