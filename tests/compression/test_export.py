"""The exported graph is the network, in one file, for any batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tasks.compression.export import IR_VERSION, OPSET, export
from tasks.compression.quantize import quantize
from tasks.compression.runtime import run_logits
from tasks.data.shards import Shards
from tasks.runtime import open_session
from tasks.training.loop import predict
from tasks.training.models import Classifier, ModelSpec

Network = tuple[Classifier, ModelSpec]


@pytest.fixture(scope="module")
def exported(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "fp32.onnx"
    export(*network, path)
    return path


def test_one_valid_file_of_the_stated_versions(exported: Path) -> None:
    graph = onnx.load(exported)
    onnx.checker.check_model(graph, full_check=True)
    assert [path.name for path in exported.parent.iterdir()] == ["fp32.onnx"]
    assert (graph.ir_version, [o.version for o in graph.opset_import]) == (IR_VERSION, [OPSET])
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    images = graph.graph.input[0].type.tensor_type
    assert images.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in images.shape.dim] == ["batch", 8, 8, 3]


def test_nothing_of_this_machine_is_in_the_file(exported: Path) -> None:
    assert str(Path(__file__).parents[2]).encode() not in exported.read_bytes()


def test_the_same_weights_give_the_same_bytes(
    exported: Path, network: Network, tmp_path: Path
) -> None:
    export(*network, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_logits_and_embedding_are_pytorchs_for_every_batch_size(
    exported: Path, network: Network, digit_shards: Shards, batch: int
) -> None:
    images = digit_shards.split("validation").images[:batch]
    session = open_session(exported, 1)
    logits, embedding = session.run(["logits", "embedding"], {"images": np.array(images)})
    np.testing.assert_allclose(logits, predict(*_swap(network, images)), atol=1e-4)
    weights = network[0].head.weight.detach().numpy()
    bias = network[0].head.bias.detach().numpy()
    np.testing.assert_allclose(embedding @ weights.T + bias, logits, atol=1e-4)


def test_int8_keeps_the_classes_and_stores_int8_weights(
    exported: Path, network: Network, digit_shards: Shards, tmp_path: Path
) -> None:
    images = digit_shards.split("validation").images
    target = tmp_path / "int8.onnx"
    quantize(exported, target, digit_shards.split("train").images, 64, seed=0)
    logits = run_logits(open_session(target, 1), images, (1, 2, 7, 64))
    agreement = (logits.argmax(1) == predict(*_swap(network, images)).argmax(1)).mean()
    assert agreement >= 0.98
    graph = onnx.load(target).graph
    kinds = {i.name: i.data_type for i in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    made_by = {output: node for node in graph.node for output in node.output}
    for node in convolutions:
        weight = made_by[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert kinds[weight.input[0]] == onnx.TensorProto.INT8
    assert target.stat().st_size < exported.stat().st_size / 2


def test_quantization_is_repeatable(exported: Path, digit_shards: Shards, tmp_path: Path) -> None:
    images = digit_shards.split("train").images
    for name in ("one", "two"):
        quantize(exported, tmp_path / name, images, 32, seed=3)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_quantization_sees_what_is_served(
    exported: Path, digit_shards: Shards, tmp_path: Path
) -> None:
    """Training images are packed with a margin: their middle calibrates."""
    images = digit_shards.split("train").images
    framed = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), constant_values=255)
    quantize(exported, tmp_path / "plain", images, 32, seed=3)
    quantize(exported, tmp_path / "framed", framed, 32, seed=3)
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "framed").read_bytes()


def test_int8_covers_the_linear_layers_of_a_convnext(
    network: Network, digit_shards: Shards, tmp_path: Path
) -> None:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    torch.manual_seed(0)
    stages = [CNBlockConfig(32, 64, 1), CNBlockConfig(64, None, 2)]
    backbone = ConvNeXt(stages, layer_scale=0.5)
    backbone.classifier[2] = torch.nn.Identity()
    model, spec = Classifier(backbone, torch.nn.Linear(64, 10)).eval(), network[1]
    export(model, spec, tmp_path / "fp32.onnx")
    images = digit_shards.split("train").images
    quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images, 64, seed=0)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    kinds = {i.name: i.data_type for i in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    layers = [made_by[node.input[1]] for node in graph.node if node.op_type == "MatMul"]
    assert [kinds[layer.input[0]] for layer in layers] == [onnx.TensorProto.INT8] * 6
    logits = run_logits(open_session(tmp_path / "int8.onnx", 1), images[:200])
    wanted = predict(model, images[:200], spec)
    assert (logits.argmax(1) == wanted.argmax(1)).mean() >= 0.95


def _swap(network: Network, images: np.ndarray) -> tuple[Classifier, np.ndarray, ModelSpec]:
    return network[0], images, network[1]
