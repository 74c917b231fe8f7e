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
    weights_only: list[Storage] = Field(
        description="further candidates, for size: weights stored so, arithmetic in float"
    )
