"""The formats that a bundle is converted to, and those that it is not, with the reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A format: what it is, the packages that convert to it and run it.

    `int8` says whether int8 layers stay int8 in it, `elsewhere` why its runtime is not here.
    """

    title: str
    packages: tuple[str, ...]
    int8: bool
    elsewhere: str | None = None


CONVERTED = {
    "openvino": Target("OpenVINO IR", ("numpy", "openvino"), int8=True),
    "executorch": Target("ExecuTorch for XNNPACK", ("executorch", "torch"), int8=True),
    "coreml": Target(
        "Core ML",
        ("coremltools", "torch"),
        int8=False,
        elsewhere="Core ML runs on Apple's systems alone",
    ),
    "tflite": Target("TensorFlow Lite", ("litert-torch", "torch"), int8=False),
}
REFUSED = {
    "tensorrt": "a TensorRT engine is built on the NVIDIA GPU that it is for, with the TensorRT "
    "that runs it; there, on an export with --target edge: trtexec --onnx=model.onnx "
    "--saveEngine=model.engine",
}
