"""What pruning has removed: channels, multiply-accumulates, parameters or measured latency."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import nn

from tasks.compression.export import export
from tasks.compression.measure import choose_threads, measure_latency, onnx_run
from tasks.training.models import Classifier, ModelSpec
from tasks.training.threads import macs

Removed = Callable[[Classifier], float]
"""The share of the original's that a network is without."""


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_channels(model: Classifier) -> int:
    """Output channels of all convolutions and linear layers but the head."""
    layers = list(model.backbone.modules())
    linear = sum(layer.out_features for layer in layers if isinstance(layer, nn.Linear))
    return linear + sum(layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d))


@contextmanager
def removed_from(
    original: Classifier, spec: ModelSpec, target: str, runs: int
) -> Iterator[Removed]:
    """What measures how much of `target` is gone against `original`.

    Latency is the ratio of the medians of `runs` calls at batch 1 in ONNX Runtime, the two
    networks in turn, with as many threads as suit the original.
    """
    if target == "latency":
        with tempfile.TemporaryDirectory() as folder:
            yield _latency(original, spec, Path(folder), runs)
        return
    counts: dict[str, Callable[[Classifier], int]] = {
        "channels": count_channels,
        "macs": lambda model: macs(model, spec.size),
        "parameters": count_parameters,
    }
    count = counts[target]
    before = count(original)
    yield lambda model: 1 - count(model) / before


def _latency(original: Classifier, spec: ModelSpec, folder: Path, runs: int) -> Removed:
    image = np.random.default_rng(0).integers(0, 256, (1, spec.size, spec.size, 3), np.uint8)
    export(original, spec, folder / "original.onnx")
    threads = choose_threads(folder / "original.onnx", image, runs)
    before = onnx_run(folder / "original.onnx", image, threads)

    def removed(model: Classifier) -> float:
        export(model, spec, folder / "pruned.onnx")
        after = onnx_run(folder / "pruned.onnx", image, threads)
        found = measure_latency({"before": before, "after": after}, runs)
        return 1 - found["after"].median_ms / found["before"].median_ms

    return removed
