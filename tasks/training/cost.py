"""What a trial's network costs when deployed: milliseconds an image, megabytes of weights.

Measured in ONNX Runtime, which is what serves: eager PyTorch would rank networks by their number
of operators (resnet18 and mobilenet_v2 take 28 and 19 ms there, 13 and 5 ms in ONNX Runtime).
The network of conf/params.yaml is timed in turn with each trial's, so that a machine that is
busier, hotter or another one does not look like a slower network.
"""

import copy
import logging
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from tasks.training.models import ModelSpec

_OPSET = 20
_ROUNDS, _RUNS, _WARM_UP = 15, 8, 3


@dataclass(frozen=True)
class Cost:
    """Of one image in one thread; of the fp32 weights, which are the ONNX file but for some kB."""

    latency_ms: float
    size_mb: float


class Meter:
    """Measures networks against a reference, the network of conf/params.yaml."""

    def __init__(self, reference: nn.Module, spec: ModelSpec) -> None:
        self._reference, self._spec = reference, spec

    def reference_ms(self) -> float:
        """Median milliseconds of the reference, here and now."""
        return float(np.median([_seconds(self._session) for _ in range(_ROUNDS)]) * 1e3)

    def cost(self, model: nn.Module, spec: ModelSpec, reference_ms: float) -> Cost:
        """The cost of `model`, with latency as on the machine where `reference_ms` was measured.

        The latency is `reference_ms` times the median, over rounds, of its time by the
        reference's in the same round.
        """
        content, size_mb = _onnx(model, spec)
        session = _open(content, spec)
        ratios = [_seconds(session) / _seconds(self._session) for _ in range(_ROUNDS)]
        return Cost(reference_ms * float(np.median(ratios)), size_mb)

    @cached_property
    def _session(self) -> "_Session":
        return _open(_onnx(self._reference, self._spec)[0], self._spec)


@dataclass(frozen=True)
class _Session:
    session: Any
    image: Any

    def run(self) -> None:
        self.session.run(None, {"x": self.image})


def _onnx(model: nn.Module, spec: ModelSpec) -> tuple[bytes, float]:
    """The network for one image (float 1×3×S×S to logits) as ONNX, and its weights in MB."""
    plain: Any = copy.deepcopy(model).cpu().eval()
    plain = plain.to(memory_format=torch.contiguous_format)
    example = torch.zeros(1, 3, spec.size, spec.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("onnxscript", "torch.onnx", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)  # its progress is no news
        program: Any = torch.onnx.export(
            plain, (example,), input_names=["x"], opset_version=_OPSET, dynamo=True, verbose=False
        )
    weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    return program.model_proto.SerializeToString(), weights / 1e6


def _open(content: bytes, spec: ModelSpec) -> _Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # its warnings are about its own optimizer
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    return _Session(session, np.zeros((1, 3, spec.size, spec.size), np.float32))


def _seconds(session: _Session) -> float:
    """The median of some runs in a row, the first of which do not count."""
    times = []
    for _ in range(_WARM_UP + _RUNS):
        started = time.perf_counter()
        session.run()
        times.append(time.perf_counter() - started)
    return float(np.median(times[_WARM_UP:]))
