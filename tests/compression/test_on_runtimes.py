"""A runtime that cannot run a graph is a row with its reason; the others keep theirs."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tasks.compression.candidates import Absent, Candidate
from tasks.compression.context import Context
from tasks.compression.export import export
from tasks.compression.on_runtimes import changed, on_runtimes
from tasks.errors import CompressionError
from tasks.training.loop import predict


@pytest.fixture
def on_both(context: Context) -> Context:
    return replace(context, params=context.params.model_copy(update={"openvino": True}))


def test_what_openvino_does_not_know_is_no_loss_for_onnx_runtime(on_both: Context) -> None:
    export(on_both.teacher, on_both.spec, on_both.folder / "fp32.onnx")
    _through_an_operator_of_microsofts(on_both.folder / "fp32.onnx", on_both.folder / "odd.onnx")
    logits = predict(on_both.teacher, on_both.validation.images, on_both.spec)

    whole = on_runtimes(on_both, "fp32", "original", None, 1, logits)
    assert [whole[0].name, whole[1][0].name] == ["fp32", "fp32@openvino"]
    assert isinstance(whole[1][0], Candidate)

    first, (other,) = changed(
        on_runtimes(on_both, "odd", "original", None, 1, logits),
        lambda candidate: candidate.rejected("for a reason"),
    )
    assert (first.name, first.verdict, first.parity_agreement) == ("odd", "rejected", 1)
    assert isinstance(other, Absent)
    assert other.name == "odd@openvino"
    assert "Inverse" in other.reason


def test_a_graph_that_onnx_runtime_cannot_run_is_none(on_both: Context) -> None:
    (on_both.folder / "torn.onnx").write_bytes(b"torn")
    with pytest.raises(Exception, match="torn"):
        on_runtimes(on_both, "torn", "original", None, 1, on_both.wanted)


def test_logits_that_are_not_finite_are_refused(on_both: Context) -> None:
    export(on_both.teacher, on_both.spec, on_both.folder / "fp32.onnx")
    model = onnx.load(on_both.folder / "fp32.onnx")
    bias = next(one for one in model.graph.initializer if list(one.dims) == [10])
    bias.CopyFrom(numpy_helper.from_array(np.full(10, np.nan, np.float32), bias.name))
    onnx.save(model, on_both.folder / "nan.onnx")
    with pytest.raises(CompressionError, match="not finite on onnxruntime"):
        on_runtimes(on_both, "nan", "original", None, 1, on_both.wanted)


def _through_an_operator_of_microsofts(source, target) -> None:
    """The logits times the inverse of the identity, of which ONNX itself has no operator."""
    model = onnx.load(source)
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[:] = ["as they were" if name == "logits" else name for name in last.output]
    classes = np.eye(10, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(classes, "identity"))
    model.graph.node.extend(
        [
            helper.make_node("Inverse", ["identity"], ["inverse"], domain="com.microsoft"),
            helper.make_node("MatMul", ["as they were", "inverse"], ["logits"]),
        ]
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, target)
