"""The sections of networks that learn from the trained one: distil and prune."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.schema.architectures import Architecture
from tasks.schema.section import Section, Share


def _no_value_twice(name: str, values: Sequence[float]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{name} {list(values)} has a value twice")


class Distil(Section):
    """Knowledge distillation: how the student and the pruned network learn, and the student."""

    architecture: Architecture = Field(description="of the student")
    widths: list[Annotated[int, Field(ge=4, le=512)]] = Field(
        min_length=1, description="to search for the student's, if it is resnet_small"
    )
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

    @model_validator(mode="after")
    def _widths_mean_something(self) -> Self:
        _no_value_twice("widths", self.widths)
        if len(self.widths) > 1 and self.architecture != "resnet_small":
            raise ValueError(
                f"widths {self.widths} are those of resnet_small; {self.architecture} has one "
                "size: give one width"
            )
        return self


class Prune(Section):
    """Structured pruning with fine-tuning, on the labels or under distillation."""

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
    ratios: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        min_length=1, description="to search for the share of the target that is removed, at least"
    )
    steps: int = Field(ge=1, description="parts in which it is removed, each fine-tuned")
    epochs: int = Field(ge=1, description="of fine-tuning, all steps together")
    lr: float = Field(gt=0, le=10, description="highest rate of the fine-tuning")
    alpha: Share = Field(
        description="weight of what the unpruned network says; the labels have the rest"
    )

    @model_validator(mode="after")
    def _every_step_is_tuned(self) -> Self:
        _no_value_twice("ratios", self.ratios)
        if self.steps > self.epochs:
            raise ValueError(
                f"steps {self.steps} exceeds epochs {self.epochs}: every step needs an epoch of "
                "fine-tuning"
            )
        return self
