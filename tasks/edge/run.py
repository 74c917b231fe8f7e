"""Classify image files with the model in this folder: python run.py IMAGE...

Needs onnxruntime, numpy and pillow (requirements.txt) and this folder. Prints file, class and
probability, with tabs between. Exits 1 when an image cannot be read, 2 when the model was altered.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tasks.pixels import Pixels, UnreadableImage, fit, read


class Model:
    """The exported model: compared with its checksum, then opened."""

    def __init__(self, folder: Path) -> None:
        self.about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        graph = (folder / "model.onnx").read_bytes()
        if hashlib.sha256(graph).hexdigest() != self.about["sha256"]["model.onnx"]:
            sys.stderr.write(f"error: {folder / 'model.onnx'} was altered; copy it anew\n")
            sys.exit(2)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.about["threads"]
        self.session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

    def pixels(self, source: Path | bytes) -> Pixels:
        """An image file as the model's input, uint8 S×S×3; raises UnreadableImage."""
        about = self.about["input"]
        values = [about[key] for key in ("size", "resize", "colour", "normalise", "margin")]
        return fit(read(source, about["max_pixels"]), *values)

    def predict(self, images: Pixels) -> Any:
        """Probabilities float32 N×C of uint8 N×S×S×3, in the order of the classes."""
        return self.session.run(["probabilities"], {"images": np.ascontiguousarray(images)})[0]


def main() -> int:
    """Answer each file as it comes; one that cannot be read is named, and passed over."""
    parser = argparse.ArgumentParser(description="Classify image files.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--json", action="store_true", help="all probabilities, a line an image")
    arguments, failed = parser.parse_args(), 0
    model = Model(Path(__file__).resolve().parent)
    for path in arguments.images:
        try:
            (probabilities,) = model.predict(model.pixels(path)[None]).tolist()
        except UnreadableImage as error:
            sys.stderr.write(f"error: {path}: {error}\n")
            failed = 1
            continue
        ranked = dict(zip(model.about["classes"], probabilities, strict=True))
        best = max(ranked, key=lambda label: ranked[label])
        text = f"{path}\t{best}\t{ranked[best]:.4f}"
        row = {"file": str(path), "class": best, "probabilities": ranked}
        sys.stdout.write((json.dumps(row) if arguments.json else text) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
