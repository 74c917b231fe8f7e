"""Where no GPU runs a model: neither is one offered, nor does a session fall back unseen.

ONNX Runtime itself is asked: its build for the CPU ignores a provider that it has not, as its
build for GPUs does where the driver is missing. AzureExecutionProvider stands for one that it has.
"""

import importlib.metadata
import logging
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tasks.errors import RuntimeMissing
from tasks.gpu import CPU, CUDA, TENSORRT, lack, open_on
from tasks.runtime import (
    GPU,
    PROVIDERS,
    available,
    idle_gpu,
    missing,
    open_model,
    version_of,
    version_of_runtime,
)

LISTED = onnxruntime.get_available_providers()
HAVE = next((name for name in LISTED if name not in (CPU, CUDA, TENSORRT)), CPU)
pytestmark = pytest.mark.skipif(CUDA in LISTED, reason="is of a build for the CPU")


@pytest.fixture(scope="module")
def graph() -> bytes:
    value = [helper.make_tensor_value_info(n, TensorProto.UINT8, [None, 2, 2, 3]) for n in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    made = helper.make_graph([node], "identity", value[:1], value[1:])
    opset = helper.make_opsetid("", 20)
    return onnx.helper.make_model(made, opset_imports=[opset], ir_version=10).SerializeToString()


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_session_that_fell_back_to_the_cpu_is_refused(graph, provider, capfd, recwarn):
    options = onnxruntime.SessionOptions()
    assert onnxruntime.InferenceSession(graph, options, [provider, CPU]).get_providers() == [CPU]
    recwarn.clear()
    with pytest.raises(RuntimeMissing, match=f"with {provider} runs on {CPU}"):
        open_on(provider, graph, options)
    assert (capfd.readouterr().out, len(recwarn)) == ("", 0)


def test_a_session_on_a_provider_that_is_there_is_given(graph):
    session = open_on(HAVE, graph, onnxruntime.SessionOptions())
    assert session.get_providers()[0] == HAVE
    assert lack(HAVE, LISTED) is None


def test_no_gpu_is_offered_and_each_says_what_to_install():
    assert not set(available()) & set(GPU)
    assert idle_gpu() == []
    wheel = f"'onnxruntime-gpu[cuda,cudnn]=={onnxruntime.__version__}'"
    for name in GPU:
        reason = missing(name)
        assert f"has no {PROVIDERS[name]}" in reason
        assert f"uv pip uninstall onnxruntime && .venv/bin/uv pip install {wheel}" in reason
        with pytest.raises(RuntimeMissing, match="onnxruntime-gpu"):
            open_model(Path("any.onnx"), name, 1)


def test_a_build_for_gpus_on_a_machine_without_one_is_idle(monkeypatch):
    """It lists its providers there too."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    assert not set(available()) & set(GPU)
    cuda, tensorrt = idle_gpu()
    assert cuda.startswith(f"{CUDA} is installed and does not run here (a session with {CUDA} runs")
    assert tensorrt.startswith(f"{TENSORRT} is installed")
    assert "`nvidia-smi`" in cuda


def test_a_model_that_the_provider_cannot_read_is_not_taken_for_a_missing_gpu(graph):
    with pytest.raises(Exception, match=r"(?i)protobuf") as error:
        open_on(HAVE, graph[:-7], onnxruntime.SessionOptions())
    assert not isinstance(error.value, RuntimeMissing)


def test_the_wheel_for_gpus_is_onnxruntime_too(tmp_path, monkeypatch):
    folder = tmp_path / "onnxruntime_gpu-1.2.3.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: onnxruntime-gpu\nVersion: 1.2.3\n")
    assert version_of("onnxruntime") == importlib.metadata.version("onnxruntime")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert (version_of("onnxruntime"), version_of("numpy")) == ("1.2.3", None)


@pytest.mark.parametrize("name", GPU)
def test_a_bundle_of_a_gpu_runs_on_the_cpu_and_says_so_once(
    make_bundle, digit_images, caplog, name
):
    bundle = make_bundle(runtime=name)
    assert bundle.info.runtime.provider == PROVIDERS[name]
    wanted = make_bundle(name="plain").predict(digit_images[:3])[0]
    with caplog.at_level(logging.WARNING):
        answers = [bundle.predict(digit_images[:3])[0] for _ in range(2)]
    assert (answers[1] == wanted).all()
    (record,) = caplog.records
    assert record.message.startswith(f"{bundle.path} was measured on {bundle.info.runtime.title}")
    assert "runs on ONNX Runtime here" in record.message
    assert "onnxruntime-gpu" in record.message


def test_every_runtime_has_the_version_of_its_library():
    assert version_of_runtime("openvino") == version_of("openvino")
    for name in ("onnxruntime", *GPU):
        assert version_of_runtime(name) == onnxruntime.__version__
