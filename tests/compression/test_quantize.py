"""int8 that keeps a budget, what cannot be int8, and what quantization never reads."""

import copy
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from building import candidates, context_of, tuning
from torch import nn

from tasks.compression.candidates import Quantization
from tasks.compression.context import Context
from tasks.compression.export import export
from tasks.compression.quantize import Limits, quantize
from tasks.compression.runtime import run_logits
from tasks.data.shards import Shards, ShardSplit, open_shards, write_index
from tasks.errors import CompressionError
from tasks.runtime import open_session
from tasks.schema import RangeMethod
from tasks.training.models import Classifier, ModelSpec

Network = tuple[Classifier, ModelSpec]


@pytest.fixture(scope="module")
def exported(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantize") / "fp32.onnx"
    export(*network, path)
    return path


def limits_of(path: Path, split: ShardSplit, agreement: float) -> Limits:
    wanted = run_logits(open_session(path, 1), split.images)
    return Limits(split.images, split.labels, wanted, 0.0, agreement)


def test_costly_layers_go_back_to_float_until_the_budget_holds(
    hostile: Network, digit_shards: Shards, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    export(*hostile, source)
    train, validation = (digit_shards.split(name) for name in ("train", "validation"))
    limits = limits_of(source, validation, agreement=0.97)

    def missed(done: Quantization) -> str:
        return limits.missed(run_logits(open_session(target, 1), validation.images))

    plain = quantize(source, target, train.images, 64, 0, "min_max")
    assert "agreement" in missed(plain)
    with caplog.at_level(logging.INFO, "tasks.compression"):
        mended = quantize(source, target, train.images, 64, 0, "min_max", limits)
    assert missed(mended) == ""
    assert mended.logit_error < plain.logit_error
    back = [layer.node for layer in mended.float_layers]
    assert 0 < len(back) < 8
    assert any("stem" in layer.layer for layer in mended.float_layers)
    for node in back:
        assert f"{node} (" in caplog.text
    costs = [layer.logit_error for layer in mended.float_layers]
    assert costs == sorted(costs, reverse=True)
    graph = onnx.load(target).graph
    floats = {i.name for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    in_float = [n for n in graph.node if n.op_type == "Conv" and n.input[1] in floats]
    assert len(in_float) == sum(layer.layer != "sum" for layer in mended.float_layers)
    assert any(i.data_type == onnx.TensorProto.INT8 for i in graph.initializer)


def test_a_budget_that_holds_puts_nothing_back(
    exported: Path, digit_shards: Shards, tmp_path: Path
) -> None:
    limits = limits_of(exported, digit_shards.split("validation"), agreement=0.9)
    images = digit_shards.split("train").images
    done = quantize(exported, tmp_path / "int8.onnx", images, 64, 0, limits=limits)
    assert done.float_layers == []
    assert done.logit_error < 0.2


def test_auto_is_no_worse_than_any_method_by_name(
    exported: Path, digit_shards: Shards, tmp_path: Path
) -> None:
    images = digit_shards.split("train").images
    done = quantize(exported, tmp_path / "int8.onnx", images, 64, 0, "auto")
    methods: list[RangeMethod] = ["min_max", "average", "percentile", "entropy", "mse"]
    named = [quantize(exported, tmp_path / one, images, 64, 0, one) for one in methods]
    assert [one.ranges for one in named] == methods
    assert done.ranges in methods
    assert done.logit_error <= 1.1 * min(one.logit_error for one in named)


def test_operators_that_int8_does_not_know_stay_in_float(
    network: Network, digit_shards: Shards, tmp_path: Path
) -> None:
    class Odd(nn.Module):
        """A convolution, a sine, a transposed convolution, a cumulative sum."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).sin()).cumsum(2).mean((2, 3))

    torch.manual_seed(0)
    export(Classifier(Odd(), nn.Linear(16, 10)).eval(), network[1], tmp_path / "fp32.onnx")
    images = digit_shards.split("train").images
    done = quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images, 64, 0)
    assert done.logit_error < 0.2
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert {"Sin", "ConvTranspose", "CumSum", "QuantizeLinear"} <= kinds


def test_a_network_with_nothing_for_int8_says_so(
    network: Network, digit_shards: Shards, tmp_path: Path
) -> None:
    class Plain(nn.Module):
        """Rows of pixels, without a layer."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(2).flatten(1)

    export(Classifier(Plain(), nn.Linear(24, 10)).eval(), network[1], tmp_path / "fp32.onnx")
    images = digit_shards.split("train").images
    with pytest.raises(CompressionError, match="no layer can be int8: of the operators"):
        quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images, 64, 0)
    assert not (tmp_path / "int8.onnx").exists()


def test_an_operator_that_nothing_here_runs_is_named(
    exported: Path, digit_shards: Shards, tmp_path: Path
) -> None:
    proto = onnx.load(exported)
    next(node for node in proto.graph.node if node.op_type == "Relu").op_type = "Swirl"
    onnx.save(proto, tmp_path / "fp32.onnx")
    images = digit_shards.split("train").images
    with pytest.raises(CompressionError, match="Swirl"):
        quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images, 64, 0)


def test_weights_that_are_not_finite_are_named(
    network: Network, digit_shards: Shards, tmp_path: Path
) -> None:
    model, spec = copy.deepcopy(network[0]), network[1]
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    export(model, spec, tmp_path / "fp32.onnx")
    images = digit_shards.split("train").images
    with pytest.raises(CompressionError, match=r"head\.bias are not finite"):
        quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images, 64, 0)
    assert not (tmp_path / "int8.onnx").exists()


def test_calibration_on_one_class_works_and_warns(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    train = context.train
    first = np.argsort(train.labels != train.labels[0], kind="stable")
    rows = first[: int((train.labels == train.labels[0]).sum())]
    few = context.params.quantize.model_copy(update={"calibration_images": 1})
    lean = replace(context, params=context.params.model_copy(update={"quantize": few}))
    found = {one.name: one for one in candidates(lean)}
    assert "show 1 of the 10 classes" in caplog.text
    assert found["fp32-int8"].accuracy > 0.5
    caplog.clear()
    one_class = ShardSplit(
        images=train.images[rows],
        labels=train.labels[rows],
        statistics=train.statistics[rows],
        hashes=train.hashes[rows],
        paths=[train.paths[row] for row in rows],
    )
    found = {one.name: one for one in candidates(replace(context, train=one_class))}
    assert found["fp32-int8"].quantization is not None


def test_storage_candidates_come_when_asked_for(context: Context) -> None:
    stored = context.params.quantize.model_copy(update={"weights_only": ["fp16", "int8"]})
    asked = replace(context, params=context.params.model_copy(update={"quantize": stored}))
    found = {one.name: one for one in candidates(asked)}
    fp32 = found["fp32"]
    for name, share in (("fp32-fp16-weights", 0.6), ("fp32-int8-weights", 0.4)):
        assert found[name].size_bytes < share * fp32.size_bytes
        assert found[name].accuracy >= fp32.accuracy - 0.02


def test_nothing_of_it_reads_the_test_split(
    hostile: Network, trained: Path, tmp_path: Path
) -> None:
    """With poison for test images and labels, the same bytes, of what is fine-tuned too."""
    made = {}
    for name, poison in (("clean", False), ("poisoned", True)):
        folder = tmp_path / name
        shards = _shards(trained, folder / "shards", poison)
        (folder / "work").mkdir()
        context = tuning(context_of(hostile, trained, shards, folder), epochs=1)
        by_name = {one.name: one for one in candidates(context)}
        done = by_name["fp32-int8"].quantization
        assert done is not None
        assert done.float_layers
        assert list(by_name) == ["fp32", "fp32-int8", "fp32-int8-finetuned"]
        assert by_name["fp32-int8-finetuned"].parent == "fp32"
        assert by_name["fp32-int8-finetuned"].quantization is not None
        files = ("fp32-int8.onnx", "fp32-int8-finetuned.onnx")
        made[name] = (by_name, *((folder / file).read_bytes() for file in files))
    assert made["clean"] == made["poisoned"]


def _shards(trained: Path, target: Path, poison: bool) -> Shards:
    """The shards of `trained`; poisoned, the test split is noise with wrong labels."""
    shutil.copytree(trained / "data/shards", target)
    source = open_shards(trained / "data/shards")
    if poison:
        noise = np.random.default_rng(0)
        for kind in ("images", "labels", "statistics"):
            file = target / f"test_{kind}.npy"
            values = np.load(file)
            values = noise.permuted(255 - values if kind == "images" else values, axis=0)
            np.save(file, values)
        paths = json.loads((target / "test_paths.json").read_text())
        (target / "test_paths.json").write_text(json.dumps(paths[::-1]))
        write_index(target, source.classes, source.contract)
        assert open_shards(target).digest != source.digest
    return open_shards(target)
