"""The sections of training and compression."""

from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tasks.schema.architectures import Activation, Architecture
from tasks.schema.augmentation import Augment, Imbalance
from tasks.schema.quantization import Quantize
from tasks.schema.section import Section, Share
from tasks.schema.students import Distil, Prune


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
    patience: int = Field(ge=1, description="epochs without a better one, by keep_by")
    keep_by: Literal["loss", "macro_f1"] = Field(
        description="the epoch whose weights are kept: of the lowest validation loss, or of the "
        "highest macro-F1 on validation images"
    )
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


class Compress(Section):
    """The candidates that are built and measured."""

    distil: Distil
    prune: Prune
    quantize: Quantize
    openvino: bool = Field(description="candidates run on OpenVINO too, where it is installed")
    gpu: bool = Field(description="and on a GPU, where ONNX Runtime runs on CUDA or TensorRT")
    minutes: float | None = Field(
        gt=0, description="no further network is trained after this long; null: no limit"
    )
    latency_runs: int = Field(ge=10, description="timed runs per candidate, interleaved")
    seed: int = Field(ge=0, description="of the student and the fine-tuning")
