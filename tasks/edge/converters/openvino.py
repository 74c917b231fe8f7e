"""ONNX → OpenVINO IR: python openvino.py MODEL.onnx IMAGES.npy FOLDER PROBABILITIES.npy

Runs in an environment of its own (openvino.txt). Weights stay as they are, int8 or float32; what
the written model answers on the images, in float32 where it is not int8, goes to PROBABILITIES.
"""

import sys

import numpy as np

# Or the import would report itself to a web service.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino  # noqa: E402


def main(model: str, images: str, folder: str, answers: str) -> None:
    """Convert, write, read again, and run one image at a time."""
    core = openvino.Core()
    target = f"{folder}/model.xml"
    openvino.save_model(core.read_model(model), target, compress_to_fp16=False)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(target, "CPU", exact)
    request = compiled.create_infer_request()
    pixels = np.load(images)
    found = [request.infer({"images": image[None]})["probabilities"].copy() for image in pixels]
    np.save(answers, np.concatenate(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
