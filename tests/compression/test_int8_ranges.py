"""Ranges of activations, from what a graph computes on images."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tasks.compression.calibration import RANGES, Observed, observe, ranges
from tasks.errors import CompressionError
from tasks.schema import RangeMethod

Range = tuple[float, float]


def graph_of(*nodes: Any, side: int = 16) -> Any:
    """A graph of images uint8 N×side×side×3 that makes "x"."""
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", side, side, 3])
    made = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [given], [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Dark images of which one pixel is white."""
    images = np.random.default_rng(0).integers(0, 20, (40, 32, 32, 3)).astype(np.uint8)
    images[7, 3, 3, 0] = 255
    return images


@pytest.fixture(scope="module")
def seen(pixels: np.ndarray) -> Observed:
    cast = helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT)
    return observe(graph_of(cast, side=32), ["x"], pixels)["x"]


def range_of(seen: Observed, method: RangeMethod) -> Range:
    return ranges({"x": seen}, method)["x"]


def error_of(values: np.ndarray, bounds: Range) -> float:
    """Mean squared error of uint8 within the bounds."""
    low, high = bounds
    scale = (high - low) / 255
    zero = round(-low / scale)
    levels = np.clip(np.round(values / scale) + zero, 0, 255)
    return float(np.mean(((levels - zero) * scale - values) ** 2))


def test_min_max_holds_every_value_and_the_others_clip_the_odd_one(seen: Observed) -> None:
    assert range_of(seen, "min_max") == (0.0, 255.0)
    for method in ("average", "percentile"):
        low, high = range_of(seen, method)  # type: ignore[arg-type]
        assert low == 0.0, method
        assert 18 < high < 150, method


def test_percentile_leaves_out_next_to_nothing(seen: Observed, pixels: np.ndarray) -> None:
    low, high = range_of(seen, "percentile")
    assert (pixels < low).mean() < 1e-4
    assert (pixels > high).mean() < 1e-4


@pytest.mark.parametrize("shape", ["normal", "heavy tails", "positive", "negative"])
def test_mse_loses_least_of_all_methods(shape: str) -> None:
    generator = np.random.default_rng(1)
    values = {
        "normal": lambda: generator.normal(0.3, 1.0, 50_000),
        "heavy tails": lambda: generator.standard_t(3, 50_000),
        "positive": lambda: np.maximum(generator.standard_t(4, 50_000), 0),
        "negative": lambda: -generator.exponential(1.0, 50_000),
    }[shape]()
    low, high = values.min(), values.max()
    counts = np.histogram(values, 2048, (low, high))[0].astype(float)
    seen = Observed(np.array([low]), np.array([high]), counts, None)
    errors = {method: error_of(values, range_of(seen, method)) for method in RANGES}
    assert errors["mse"] <= 1.02 * min(errors.values()), errors
    if shape == "heavy tails":
        assert errors["mse"] < 0.95 * errors["min_max"]


def test_entropy_keeps_a_range_that_is_full_and_cuts_one_that_is_not() -> None:
    even = Observed(np.array([0.0]), np.array([1.0]), np.full(2048, 100.0), None)
    assert range_of(even, "entropy")[1] > 0.95
    values = np.random.default_rng(2).exponential(1.0, 200_000)
    counts = np.histogram(values, 2048, (0, values.max()))[0].astype(float)
    tailed = Observed(np.array([0.0]), np.array([values.max()]), counts, None)
    assert 4 < range_of(tailed, "entropy")[1] < 0.9 * values.max()


def test_a_constant_has_a_range_by_every_method() -> None:
    seen = Observed(np.array([2.0, 2.0]), np.array([2.0, 2.0]), np.r_[9.0, np.zeros(2047)], None)
    assert {range_of(seen, method) for method in RANGES} == {(0.0, 2.0)}


def test_the_average_is_of_the_extremes_of_batches(pixels: np.ndarray, seen: Observed) -> None:
    highs = [pixels[start : start + 16].max() for start in (0, 16, 32)]
    assert range_of(seen, "average")[1] == pytest.approx(np.mean(highs))


def test_means_are_those_of_the_channels(pixels: np.ndarray) -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["x"], perm=[0, 3, 1, 2]),
    ]
    seen = observe(graph_of(*nodes, side=32), ["x"], pixels)["x"]
    np.testing.assert_allclose(seen.means, pixels.mean((0, 1, 2)), rtol=1e-5)


def test_what_is_not_finite_is_named(pixels: np.ndarray) -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Log", ["floats"], ["x"]),
    ]
    with pytest.raises(CompressionError, match="x is not finite"):
        observe(graph_of(*nodes, side=32), ["x"], pixels)
