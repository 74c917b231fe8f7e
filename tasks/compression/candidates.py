"""A candidate for deployment: its ONNX file, what was measured of it, and the verdict on it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.runtime import RuntimeName

Verdict = Literal["chosen", "eligible", "rejected"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FloatLayer(_Frozen):
    """A layer that stayed in float because the budget would not have held."""

    node: str = Field(description="as in the float candidate's file")
    layer: str = Field(description="the name of its weights, or sum")
    logit_error: float = Field(description="of the network with this layer alone in int8")


class Quantization(_Frozen):
    """How an int8 candidate was made."""

    ranges: str = Field(description="the method that gave the ranges of activations")
    equalised_pairs: int
    corrected_biases: bool
    logit_error: float = Field(
        description="root mean square on training images, in deviations of the float logits"
    )
    float_layers: list[FloatLayer]


class Candidate(_Frozen):
    """An exported model. Accuracies and agreements are shares of all validation images."""

    name: str
    technique: str
    file: str
    parent: str | None = Field(description="int8: the float candidate it was quantized from")
    parameters: int
    accuracy: float
    agreement: float = Field(description="same class as the fp32 PyTorch model")
    parity_max_difference: float = Field(description="of probabilities, from its PyTorch model")
    parity_agreement: float = Field(description="same class as its PyTorch model")
    size_bytes: int
    runtime: RuntimeName = Field("onnxruntime", description="what it was measured on and is for")
    threads: int = Field(1, description="of the runtime while measured")
    latency_ms: float = Field(0.0, description="median at batch 1")
    latency_p95_ms: float = 0.0
    quantization: Quantization | None = Field(None, description="of int8: how it was made")
    verdict: Verdict = "eligible"
    reason: str = ""

    def rejected(self, reason: str) -> "Candidate":
        """The same candidate, out of the race."""
        return self.model_copy(update={"verdict": "rejected", "reason": reason})


class Failure(_Frozen):
    """A candidate that could not be built."""

    name: str
    technique: str
    reason: str


class Results(_Frozen):
    """candidates.json."""

    chosen: str
    reason: str
    fp32: str
    eager_fp32_latency_ms: float
    eager_threads: int = Field(description="of eager PyTorch while measured")
    candidates: list[Candidate]
    failed: list[Failure]

    def named(self, name: str) -> Candidate:
        """The candidate of that name."""
        return next(candidate for candidate in self.candidates if candidate.name == name)
