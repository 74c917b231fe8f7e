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


def drawn(shape: str, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    one = np.zeros(1_000_000)
    one[0] = 20.0
    return {
        "normal": lambda: generator.normal(0.3, 1.0, 50_000),
        "heavy tails": lambda: generator.standard_t(3, 50_000),
        "positive": lambda: np.maximum(generator.standard_t(4, 50_000), 0),
        "negative": lambda: -generator.exponential(1.0, 50_000),
        "rectified": lambda: np.maximum(generator.normal(0.0, 1.0, 200_000), 0),
        "one outlier": lambda: generator.normal(0.0, 1.0, 1_000_000) + one,
    }[shape]()


def seen_of(values: np.ndarray) -> Observed:
    low, high = values.min(), values.max()
    counts = np.histogram(values, 2048, (low, high))[0].astype(float)
    return Observed(np.array([low]), np.array([high]), counts, None)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["normal", "heavy tails", "positive", "negative"])
def test_mse_loses_least_of_all_ranges(shape: str, seed: int) -> None:
    """Of the other methods', and of a grid of them, each end by each."""
    values = drawn(shape, seed)
    seen = seen_of(values)
    found = error_of(values, range_of(seen, "mse"))
    assert found <= 1.02 * min(error_of(values, range_of(seen, method)) for method in RANGES)
    (low, high), shares = seen.extremes, np.linspace(0.4, 1.0, 13)
    grid = [
        (low * a, high * b) for a in (shares if low else [0.0]) for b in (shares if high else [0.0])
    ]
    assert found <= 1.02 * min(error_of(values, bounds) for bounds in grid)


@pytest.mark.parametrize("seed", range(3))
def test_an_outlier_in_a_million_is_clipped_and_the_rest_finer_for_it(seed: int) -> None:
    values = drawn("one outlier", seed)
    seen = seen_of(values)
    whole = error_of(values, range_of(seen, "min_max"))
    for method, least in (("mse", 0.5), ("entropy", 0.5), ("percentile", 0.5)):
        low, high = range_of(seen, method)  # type: ignore[arg-type]
        assert (low, high) == pytest.approx((-5, 6), abs=3), method
        assert error_of(values, (low, high)) < least * whole, method


def threshold_by_the_slides(values: np.ndarray) -> float:
    """Migacz 2017, written out: 2,048 bins of the size, 128 levels, Q empty where P is.

    As his, without the bin of zero, which any threshold keeps; every 16th threshold.
    """
    counts, edges = np.histogram(np.abs(values), 2048, (0, np.abs(values).max()))
    bins = [float(count) for count in counts]
    bins[0] = bins[1]
    found = []
    for end in range(128, 2049, 16):
        p = bins[:end]
        p[-1] += sum(bins[end:])
        q = [0.0] * end
        for level in range(128):
            part = range(level * end // 128, (level + 1) * end // 128)
            there = [place for place in part if p[place] > 0]
            for place in there:
                q[place] = sum(bins[one] for one in part) / len(there)
        whole, kept = sum(p), sum(q)
        terms = [(a / whole, max(b / kept, 1e-12)) for a, b in zip(p, q, strict=True) if a > 0]
        divergence = sum(a * np.log(a / b) for a, b in terms)
        found.append((divergence, edges[end]))
    return float(min(found)[1])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", ["rectified", "positive", "negative"])
def test_entropy_cuts_where_the_paper_does(shape: str, seed: int) -> None:
    values = drawn(shape, seed)
    low, high = range_of(seen_of(values), "entropy")
    wanted = threshold_by_the_slides(values)
    assert max(-low, high) == pytest.approx(min(wanted, max(-values.min(), values.max())), rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_entropy_cuts_the_tail_of_rectified_values_to_their_gain(seed: int) -> None:
    values = drawn("rectified", seed)
    low, high = range_of(seen_of(values), "entropy")
    assert low == 0
    assert high < 0.97 * values.max()
    assert error_of(values, (low, high)) < error_of(values, (0.0, values.max()))


def test_entropy_keeps_a_range_that_is_full() -> None:
    even = Observed(np.array([0.0]), np.array([1.0]), np.full(2048, 100.0), None)
    assert range_of(even, "entropy")[1] > 0.95


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
