"""What others make int8 of an exported network: onnxruntime.quantization, and NNCF for OpenVINO."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks._environments import interpreter
from tasks.pixels import Pixels

PACKAGES = ("nncf==3.4.0", "openvino==2026.4.1")
NAIVE, NNCF = "onnxruntime quantize_static", "NNCF + OpenVINO"
# Run in the environment of NNCF: the network, the calibration images, the int8 network.
_SCRIPT = """
import sys
import nncf, numpy as np, openvino as ov
network, data, target = sys.argv[1:]
images = np.load(data)
images = [images[i : i + 1] for i in range(len(images))]
quantized = nncf.quantize(ov.Core().read_model(network), nncf.Dataset(images))
ov.save_model(quantized, target, compress_to_fp16=False)
"""


def quantize_naively(source: Path, target: Path, calibration: Pixels) -> None:
    """As onnxruntime's documentation says: prepare, then quantize with every default."""
    prepared = target.with_name("prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(prepared, target, _Reader(calibration))


def quantize_with_nncf(source: Path, target: Path, calibration: Pixels) -> None:
    """NNCF's post-training quantization as it comes, to OpenVINO's own format (target is .xml)."""
    images = target.with_suffix(".npy")
    np.save(images, calibration)
    command = [
        str(interpreter("nncf", *PACKAGES)),
        "-c",
        _SCRIPT,
        str(source),
        str(images),
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: NNCF failed\n{done.stderr[-2000:]}")


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration images in batches."""

    def __init__(self, images: Pixels) -> None:
        self._batches: Iterator[npt.NDArray[Any]] = iter(np.array_split(images, len(images) // 16))

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch by input name, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
