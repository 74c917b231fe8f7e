"""The profile counts the work that a network does, in float and in int8."""

import csv
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from flows.profile import write_csv
from tasks.edge.machine import Machine
from tasks.edge.operators import Operator
from tasks.edge.profile import Profile, profile
from tasks.errors import BundleError

SIDE, WIDTH, CLASSES = 16, 32, 10
# A convolution from 3 channels, a depthwise one, a pointwise one, and the head.
MACS = SIDE * SIDE * (WIDTH * 27 + WIDTH * 9 + WIDTH * WIDTH) + WIDTH * CLASSES


class _Images(CalibrationDataReader):
    def __init__(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
        self._batches = iter([{"images": images}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def _network() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    shapes = {
        "first": (WIDTH, 3, 3, 3), "depthwise": (WIDTH, 1, 3, 3), "pointwise": (WIDTH, WIDTH, 1, 1),
        "head": (CLASSES, WIDTH),
    }  # fmt: skip
    weights = {name: random.normal(0, 0.1, shape).astype("f4") for name, shape in shapes.items()}
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "first"], ["a"], **pads),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], group=WIDTH, **pads),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "pointwise"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "head"], ["logits"], transB=1),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [tensor("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [tensor("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network in float32, and with int8 convolutions as QuantizeLinear pairs."""
    folder = tmp_path_factory.mktemp("models")
    paths = {name: folder / f"{name}.onnx" for name in ("float32", "int8")}
    onnx.save(_network(), paths["float32"])
    quantize_static(
        paths["float32"],
        paths["int8"],
        _Images(),
        op_types_to_quantize=["Conv", "Relu"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return paths


@pytest.fixture(scope="module")
def profiles(models: dict[str, Path]) -> dict[str, Profile]:
    return {name: profile(path, 1, 2, 10) for name, path in models.items()}


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_the_work_is_counted(profiles: dict[str, Profile], kind: str) -> None:
    found = profiles[kind]
    assert found.macs == 2 * MACS  # of a batch of two
    convolutions = [one for one in found.operators if "Conv" in one.type]
    assert [one.precision for one in convolutions] == [kind] * 3
    assert [one.macs for one in found.operators if one.type in ("Gemm", "FusedGemm")] == [
        2 * WIDTH * CLASSES
    ]
    weights = WIDTH * 27 + WIDTH * 9 + WIDTH * WIDTH
    least = weights * (4 if kind == "float32" else 1) + 4 * WIDTH * CLASSES
    assert least <= found.weight_bytes < least + 2000  # scales, zero points, biases


def test_int8_moves_fewer_bytes(profiles: dict[str, Profile]) -> None:
    moved = {
        kind: sum(one.moved_bytes for one in found.operators if "Conv" in one.type)
        for kind, found in profiles.items()
    }
    assert moved["int8"] < moved["float32"] / 2


def test_the_shares_are_of_the_whole_and_the_types_hold_every_node(
    profiles: dict[str, Profile],
) -> None:
    for found in profiles.values():
        assert sum(row.share for row in found.types) == pytest.approx(1)
        assert sum(row.nodes for row in found.types) == len(found.nodes) == len(found.operators)
        assert sum(row.macs for row in found.types) == found.macs
        assert [row.ms for row in found.types] == sorted((r.ms for r in found.types), reverse=True)


def test_memory_and_ceilings_are_measured(profiles: dict[str, Profile]) -> None:
    for found in profiles.values():
        assert found.memory.libraries > 1 << 20
        assert 0 < found.memory.loaded <= found.memory.peak < 1 << 30
        assert 1e8 < found.machine.float32_macs_per_s < 1e14
        assert 1e8 < found.machine.int8_macs_per_s < 1e14
        assert 1e8 < found.machine.bytes_per_s < 1e13
        assert 0 < found.best_ms <= found.latency_ms <= found.p95_ms


def test_the_floor_is_the_slower_of_work_and_bytes() -> None:
    machine = Machine(1, 4e9, 1e9, 1000, 1e9)
    assert machine.floor_s(8_000_000, 1_000, "int8") == pytest.approx(2e-3)
    assert machine.floor_s(8_000_000, 1_000, "float32") == pytest.approx(8e-3)
    assert machine.floor_s(8_000, 5_000_000, "int8") == pytest.approx(5e-3)
    heavy = Operator("a", "Conv", 3.0, 8_000_000, 1_000, 100, "int8")
    light = Operator("b", "Concat", 1.0, 0, 500_000, 0, "float32")
    whole = Profile("m", "onnxruntime", 1, 1, 10, 5.0, 5.0, 6.0, [heavy, light], None, 1, machine)
    assert whole.floor_ms == pytest.approx(2.5)
    assert [(row.name, row.bound, row.share) for row in whole.nodes] == [
        ("a", "compute", 0.75),
        ("b", "memory", 0.25),
    ]


def test_a_row_a_node_in_the_table(profiles: dict[str, Profile], tmp_path: Path) -> None:
    write_csv(profiles["int8"], tmp_path / "nodes.csv")
    with open(tmp_path / "nodes.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(profiles["int8"].nodes)
    assert sum(int(row["macs"]) for row in rows) == profiles["int8"].macs
    assert {row["precision"] for row in rows} == {"int8", "float32"}


def test_what_cannot_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match=r"broken\.onnx cannot be run"):
        profile(tmp_path / "broken.onnx", 1, 1, 10)
