"""What each architecture costs here: parameters, multiply-accumulates, size, measured latency.

The networks are as they would be deployed: exported to ONNX in fp32, random weights, and run by
ONNX Runtime on one image at a time. Weights do not change what a network costs.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from tasks.compression.export import export
from tasks.compression.measure import choose_threads, measure_latency, onnx_run
from tasks.compression.targets import count_parameters
from tasks.errors import ParamsError, TrainingError
from tasks.schema import Architecture, Train
from tasks.training.models import ModelSpec, build
from tasks.training.threads import macs

NAMES: tuple[str, ...] = get_args(Architecture)
_RUNS = 30  # timed runs of a network


@dataclass(frozen=True)
class Cost:
    """One architecture; `failure` says why there are no figures."""

    name: str
    parameters: int = 0
    macs: int = 0
    size_bytes: int = 0
    latency_ms: float = 0.0
    latency_p95_ms: float = 0.0
    threads: int = 0
    failure: str | None = None

    def as_json(self) -> dict[str, object]:
        """As plain values; of a failure its reason alone."""
        values = asdict(self)
        if self.failure is None:
            return {key: value for key, value in values.items() if key != "failure"}
        return {"name": self.name, "failure": self.failure}


def costs(names: Sequence[str], train: Train, size: int, classes: int) -> Iterator[Cost]:
    """Measure each architecture in turn, for size×size images and that many classes.

    `train` gives resnet_small's width and depth, and the activation. Raises ParamsError for an
    unknown name before any work; what cannot be built for this size is a failure, not an end.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ParamsError(f"{unknown[0]!r} is no architecture; there are {', '.join(NAMES)}")
    return (_cost(_spec(name, train, size, classes)) for name in names)


def _spec(name: str, train: Train, size: int, classes: int) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "architecture": name,
            "width": train.width,
            "depth": train.depth,
            "classes": tuple(str(number) for number in range(classes)),
            "size": size,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "activation": train.activation,
        }
    )


def _cost(spec: ModelSpec) -> Cost:
    try:
        with torch.random.fork_rng(devices=[]):
            model = build(spec).eval()
    except TrainingError as error:
        return Cost(spec.architecture, failure=str(error))
    image = np.random.default_rng(0).integers(0, 256, (1, spec.size, spec.size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export(model, spec, path)
        threads = choose_threads(path, image, _RUNS)
        latency = measure_latency({"onnx": onnx_run(path, image, threads)}, _RUNS)["onnx"]
        return Cost(
            name=spec.architecture,
            parameters=count_parameters(model),
            macs=macs(model, spec.size),
            size_bytes=path.stat().st_size,
            latency_ms=latency.median_ms,
            latency_p95_ms=latency.p95_ms,
            threads=threads,
        )
