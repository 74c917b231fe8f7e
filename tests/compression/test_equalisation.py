"""Changes of a graph before int8: the function stays, and int8 loses less of it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from tasks.compression.calibration import observe, ranges
from tasks.compression.equalisation import correct_biases, equalise, pairs
from tasks.compression.export import export
from tasks.compression.int8 import activations, prepare, to_int8
from tasks.compression.runtime import logit_error, run_logits
from tasks.data.shards import Shards
from tasks.runtime import Floats, open_session
from tasks.training.models import Classifier, ModelSpec


class Bottleneck(nn.Module):
    """What mobile networks are made of: dense, depthwise, dense; its channels are unequal."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.project = nn.Conv2d(3, 24, 3), nn.Conv2d(24, 16, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, groups=24)
        with torch.no_grad():
            self.expand.weight *= torch.logspace(-2, 1, 24).view(-1, 1, 1, 1)
            self.project.weight *= torch.logspace(0, -3, 24)[torch.randperm(24)].view(1, -1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.depthwise(nn.functional.relu(self.expand(x))))
        return self.project(x).mean((2, 3))


@pytest.fixture(scope="module")
def images(digit_shards: Shards) -> np.ndarray:
    return np.array(digit_shards.split("train").images[:200])


@pytest.fixture(scope="module")
def unequal(
    network: tuple[Classifier, ModelSpec], tmp_path_factory: pytest.TempPathFactory
) -> object:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("unequal") / "fp32.onnx"
    export(Classifier(Bottleneck(), nn.Linear(16, 10)).eval(), network[1], path)
    return prepare(path)


def logits_of(graph: object, images: np.ndarray) -> Floats:
    return run_logits(open_session(graph.SerializeToString(), 1), images)  # type: ignore[attr-defined]


def int8_of(graph: object, images: np.ndarray) -> object:
    return to_int8(graph, ranges(observe(graph, activations(graph), images), "min_max"))


def test_equalised_channels_compute_the_same_and_suit_int8(
    unequal: object, images: np.ndarray
) -> None:
    assert len(pairs(unequal)) == 2
    wanted = logits_of(unequal, images)
    equal = equalise(unequal)
    np.testing.assert_allclose(logits_of(equal, images), wanted, rtol=1e-3, atol=1e-4)
    before, after = (
        logit_error(logits_of(int8_of(graph, images), images), wanted) for graph in (unequal, equal)
    )
    assert after < 0.6 * before


def test_relu6_becomes_a_relu_with_the_channels_it_is_between(
    network: tuple[Classifier, ModelSpec], images: np.ndarray, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with torch.no_grad():  # nothing reaches six, so that the result stays the same
        trunk[0].weight *= torch.linspace(0.1, 1, 8).view(-1, 1, 1, 1)
    export(Classifier(trunk, nn.Linear(16, 10)).eval(), network[1], tmp_path / "fp32.onnx")
    graph = prepare(tmp_path / "fp32.onnx")
    assert "Clip" in {node.op_type for node in graph.graph.node}
    equal = equalise(graph)
    assert "Clip" not in {node.op_type for node in equal.graph.node}
    wanted = logits_of(graph, images)
    np.testing.assert_allclose(logits_of(equal, images), wanted, rtol=1e-3, atol=1e-4)


def test_a_residual_sum_is_not_between_channels(
    network: tuple[Classifier, ModelSpec], tmp_path: Path
) -> None:
    export(*network, tmp_path / "fp32.onnx")
    graph = prepare(tmp_path / "fp32.onnx")
    names = {node.name: node for node in graph.graph.node}
    for pair in pairs(graph):
        assert names[pair.first.name].output[0] in (pair.between or pair.second).input
    assert len(pairs(graph)) == 3  # conv1 and conv2 of each of the three blocks


def test_corrected_biases_make_up_for_the_mean_of_the_rounding(
    network: tuple[Classifier, ModelSpec], images: np.ndarray, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, 3)  # of rectified inputs, whose means are not zero
    with torch.no_grad():  # one large weight a channel: the others are rounded coarsely
        layer.weight[:, 0, 0, 0] = 4.0
    trunk = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    export(Classifier(trunk, nn.Linear(16, 10)).eval(), network[1], tmp_path / "fp32.onnx")
    graph = prepare(tmp_path / "fp32.onnx")
    seen = observe(graph, activations(graph), images)
    bounds, wanted = ranges(seen, "min_max"), logits_of(graph, images)
    plain = to_int8(graph, bounds)
    corrected = to_int8(correct_biases(graph, plain, seen), bounds)
    shifts = [
        np.abs((logits_of(int8, images) - wanted).mean(0)).max() for int8 in (plain, corrected)
    ]
    assert shifts[1] < 0.6 * shifts[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_shift_of_rounded_weights_is_undone_where_nothing_else_is_rounded(
    seed: int, network: tuple[Classifier, ModelSpec], images: np.ndarray, tmp_path: Path
) -> None:
    """Of one pointwise layer, which has no borders, to the last digits."""
    torch.manual_seed(seed)
    layer = nn.Conv2d(3, 16, 1)
    with torch.no_grad():
        layer.weight[:, 0] = 40.0
    trunk = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    export(Classifier(trunk, nn.Linear(16, 10)).eval(), network[1], tmp_path / "fp32.onnx")
    graph = prepare(tmp_path / "fp32.onnx")
    seen = observe(graph, activations(graph), images)
    int8, wanted = to_int8(graph, ranges(seen, "min_max")), logits_of(graph, images)
    shifts = [
        np.abs((logits_of(with_rounded_weights(one, int8), images) - wanted).mean(0)).max()
        for one in (graph, correct_biases(graph, int8, seen))
    ]
    assert shifts[1] < 0.01 * shifts[0]


def with_rounded_weights(graph: Any, int8: Any) -> Any:
    """The graph with the weights of `int8`, and all else in float."""
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    values = {one.name: numpy_helper.to_array(one) for one in int8.graph.initializer}
    for weight in copied.graph.initializer:
        levels = values.get(f"{weight.name}_quantized")
        if levels is not None and levels.dtype == np.int8:
            rounded = levels * values[f"{weight.name}_scale"].reshape(-1, 1, 1, 1)
            weight.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), weight.name))
    return copied
