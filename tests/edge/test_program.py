"""The PyTorch program that some formats are made from answers as the ONNX file that it is of."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tasks.compression.export import export
from tasks.compression.quantize import quantize
from tasks.edge.environments import CONVERTERS
from tasks.evaluation.calibration import METHODS
from tasks.evaluation.calibrators import fit
from tasks.evaluation.folding import fold
from tasks.evaluation.graph import run_graph
from tasks.evaluation.ood_scores import fit_scores
from tasks.runtime import open_session
from tasks.schema import CalibrationMethod
from tasks.training.models import ModelSpec, build

SIZE = 8
TEN = tuple("0123456789")


@pytest.fixture(scope="module")
def program() -> Iterator[Any]:
    """The module as the converters import it: by itself, from their folder."""
    sys.path.append(str(CONVERTERS))  # last: openvino.py there is not the package
    import program

    yield program
    sys.path.remove(str(CONVERTERS))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory, digit_images: np.ndarray) -> dict[str, Path]:
    """A residual network and its int8 graph, which has no ReLU left: the ranges begin at 0."""
    folder = tmp_path_factory.mktemp("graphs")
    found = {name: folder / f"{name}.onnx" for name in ("float", "int8")}
    spec = ModelSpec(
        architecture="resnet_small", width=8, depth=1, classes=TEN, size=SIZE, mean=(0.3,) * 3,
        std=(0.4,) * 3,
    )  # fmt: skip
    torch.manual_seed(0)
    export(build(spec).eval(), spec, found["float"])
    quantize(found["float"], found["int8"], digit_images[:64], 32, 0, "min_max")
    return found


def _logits(program: Any, path: Path, images: np.ndarray, int8: bool) -> np.ndarray:
    network = program.load(str(path), int8=int8)
    place = network.outputs.index("logits")
    with torch.inference_mode():
        return np.concatenate([network(torch.from_numpy(one[None]))[place] for one in images])


def test_a_float_network_is_the_same(
    program: Any, graphs: dict[str, Path], digit_images: np.ndarray
) -> None:
    images = digit_images[1200:1232]
    (wanted,) = open_session(graphs["float"], 1).run(["logits"], {"images": images})
    found = _logits(program, graphs["float"], images, int8=True)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_an_int8_network_is_the_same_to_a_step_or_cut_but_not_rounded(
    program: Any, graphs: dict[str, Path], digit_images: np.ndarray
) -> None:
    images = digit_images[1200:1232]
    (wanted,) = open_session(graphs["int8"], 1).run(["logits"], {"images": images})
    spread = wanted.std()
    exact = _logits(program, graphs["int8"], images, int8=True)
    assert np.abs(exact - wanted).max() < 0.1 * spread
    # Without the lower end of the ranges there would be no ReLU in it at all.
    plain = _logits(program, graphs["int8"], images, int8=False)
    assert np.abs(plain - wanted).max() < 0.5 * spread


OPERATORS = [
    ("HardSwish", [], {}),
    ("HardSigmoid", [], {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}),
    ("Clip", [np.float32(-0.2), np.float32(0.7)], {}),
    ("Gelu", [], {"approximate": "none"}),
    ("LeakyRelu", [], {"alpha": 0.2}),
    ("LayerNormalization", [np.ones(3, "f4"), np.zeros(3, "f4")], {"axis": -1}),
    ("ReduceMean", [np.array([1, 2])], {"keepdims": 0}),
    ("ReduceMax", [np.array([3])], {"keepdims": 1}),
    ("ReduceMin", [np.array([1, 3])], {"keepdims": 0}),
    ("ReduceSum", [np.array([2])], {}),
    ("Exp", [], {}),
    ("Neg", [], {}),
    ("Slice", [np.array([1]), np.array([2**63 - 1]), np.array([1])], {}),
    ("Slice", [np.array([0, -5]), np.array([1, -1])], {}),
    ("Gather", [np.array(2)], {"axis": 1}),
    ("Gather", [np.array([[0, 2], [1, 1]])], {"axis": 1}),
    ("Reshape", [np.array([0, -1])], {}),
    ("Expand", [np.array([2, 1, SIZE, SIZE, 3])], {}),
    ("Unsqueeze", [np.array([1, 3])], {}),
    ("Gemm", [np.ones((3, 2), "f4")], {}),
    ("Softmax", [], {"axis": 2}),
]


@pytest.mark.parametrize(("name", "constants", "attributes"), OPERATORS)
def test_an_operator_is_onnxs(
    program: Any, digit_images: np.ndarray, name: str, constants: list, attributes: dict
) -> None:
    model = _alone(name, constants, attributes)
    images = digit_images[1300:1301]
    (wanted,) = open_session(model.SerializeToString(), 1).run(None, {"images": images})
    (found,) = program.Program(model, int8=True)(torch.from_numpy(images))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_a_product_by_int8_weights_is_a_layer_with_a_scale_for_each_row(
    program: Any, digit_images: np.ndarray
) -> None:
    """As ExecuTorch wants them: an int8 matrix product is left over, and fails its conversion."""
    random = np.random.default_rng(0)
    arrays = {
        "scale": np.float32(1), "zero": np.uint8(3),
        "weights": random.integers(-127, 128, (3, 5), np.int8),
        "scales": random.uniform(0.001, 0.01, 5).astype("f4"), "zeros": np.zeros(5, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["w"], axis=1),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    model = _model(nodes, arrays)
    images = digit_images[1300:1301]
    (wanted,) = open_session(model.SerializeToString(), 1).run(None, {"images": images})
    for int8 in (True, False):
        made = program.Program(model, int8=int8)
        (found,) = made(torch.from_numpy(images))
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)
    exported = torch.export.export(program.Program(model, int8=True), (made.example(),))
    called = {str(node.target) for node in exported.graph.nodes}
    assert "aten.linear.default" in called
    assert "quantized_decomposed.dequantize_per_channel.default" in called


@pytest.mark.parametrize("method", METHODS)
def test_a_folded_graph_is_the_same(
    program: Any, graphs: dict[str, Path], digit_images: np.ndarray, digit_labels: np.ndarray,
    tmp_path: Path, method: CalibrationMethod,
) -> None:  # fmt: skip
    """Every calibration and every score, as converters take them: one image at a time."""
    images, labels, folded = digit_images[:300], digit_labels[:300], tmp_path / "folded.onnx"
    logits, embedding = run_graph(graphs["float"], images, ["logits", "embedding"])
    for score in fit_scores(embedding, labels):
        fold(graphs["float"], fit(method, logits, labels), score, folded)
        outputs = ["probabilities", "embedding", "ood_score"]
        wanted = open_session(folded, 1).run(outputs, {"images": images[:16]})
        network = program.load(str(folded), int8=True)
        assert network.outputs == ["probabilities", "embedding", "ood_score"]
        with torch.inference_mode():
            each = [network(torch.from_numpy(one[None])) for one in images[:16]]
        for found, right in zip(zip(*each, strict=True), wanted, strict=True):
            np.testing.assert_allclose(np.concatenate(found), right, rtol=2e-3, atol=2e-4)


def test_an_operator_that_is_not_known_is_named(program: Any) -> None:
    with pytest.raises(ValueError, match="the operator Erf is not known here"):
        program.Program(_alone("Erf", [], {}), int8=True)


def _alone(name: str, constants: list, attributes: dict) -> Any:
    """uint8 1×S×S×3 → floats about 0 → the operator; Gemm has two dimensions."""
    shape = np.array([-1, 3] if name == "Gemm" else [1, SIZE, SIZE, 3])
    arrays = {"scale": np.float32(100), "shift": np.float32(1), "shape": shape}
    arrays |= {f"c{i}": array for i, array in enumerate(constants)}
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["shifted"]),
        helper.make_node("Reshape", ["shifted", "shape"], ["x"]),
        helper.make_node(
            name, ["x", *(f"c{i}" for i in range(len(constants)))], ["y"], **attributes
        ),
    ]
    return _model(nodes, arrays)


def _model(nodes: list, arrays: dict) -> Any:
    graph = helper.make_graph(
        nodes,
        "alone",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(array), key) for key, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
