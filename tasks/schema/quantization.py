"""The section compress.quantize: networks in fewer bits."""

from typing import Literal

from pydantic import Field

from tasks.schema.section import Section

RangeMethod = Literal["auto", "min_max", "average", "percentile", "entropy", "mse"]
Storage = Literal["fp16", "int8"]


class Quantize(Section):
    """Static int8 quantization, and weights stored in fewer bits."""

    calibration_images: int = Field(ge=1, description="of the training split")
    ranges: RangeMethod = Field(
        description="what bounds activations; auto: whatever brings the logits nearest"
    )
    finetune_epochs: int = Field(
        ge=0,
        description="with int8 simulated, of networks whose int8 misses the budget; 0: none",
    )
    finetune_lr: float = Field(gt=0, description="learning rate of that; its schedule is train's")
    weights_only: list[Storage] = Field(
        description="further candidates, for size: weights stored so, arithmetic in float"
    )
