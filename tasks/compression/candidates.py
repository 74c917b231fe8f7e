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
    """A graph on a runtime. Shares are of all validation images; changes are against fp32."""

    name: str
    technique: str
    file: str
    parent: str | None = Field(description="int8: the float candidate it was quantized from")
    runtime: RuntimeName = "onnxruntime"
    parameters: int
    size_bytes: int
    parity_max_difference: float = Field(description="of probabilities, from its PyTorch model")
    parity_agreement: float = Field(description="same class as its PyTorch model")

    accuracy: float
    accuracy_low: float = Field(description="95 % interval")
    accuracy_high: float
    accuracy_change: float
    accuracy_change_low: float = Field(description="95 % interval of the paired difference")
    accuracy_change_high: float
    worst_recall_change: float = Field(description="of the class that loses most")
    worst_recall_class: str
    agreement: float = Field(description="same class as the fp32 PyTorch model")
    calibration_error: float = Field(description="expected, before a temperature is fitted")

    threads: int = Field(1, description="intra-op, the faster of one and all cores")
    latency_ms: float = Field(0.0, description="median at batch 1")
    latency_p95_ms: float = 0.0
    latency_ratio: float = Field(1.0, description="to fp32, mean of the rounds")
    latency_ratio_low: float = Field(1.0, description="95 % interval")
    latency_ratio_high: float = 1.0
    batch_latency_ms: float = Field(0.0, description="median at serve.max_batch")
    images_per_second: float = Field(0.0, description="at serve.max_batch")
    memory_bytes: int = Field(0, description="at the peak, of a process that runs only this")
    cold_start_ms: float = Field(0.0, description="from the start of its process to an answer")

    quantization: Quantization | None = Field(None, description="of int8: how it was made")
    verdict: Verdict = "eligible"
    reason: str = ""

    def rejected(self, reason: str) -> "Candidate":
        """The same candidate, out of the race."""
        return self.model_copy(update={"verdict": "rejected", "reason": reason})


class Absent(_Frozen):
    """A candidate that there is not: it could not be built, or the search had no need of it."""

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
    batch: int = Field(description="images of batch_latency_ms and images_per_second")
    noise: float = Field(description="spread of the rounds' medians of fp32, as a share of it")
    rounds: int = Field(description="in which every candidate was timed in turn")
    candidates: list[Candidate]
    failed: list[Absent]
    skipped: list[Absent]

    def named(self, name: str) -> Candidate:
        """The candidate of that name."""
        return next(candidate for candidate in self.candidates if candidate.name == name)
