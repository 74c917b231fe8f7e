"""Classify image files with the model in this folder: python run.py IMAGE...

Needs requirements.txt. Prints file, label, probability, and "abstain" or "strange" where it is so,
with tabs between. Exits 1 when an image cannot be read, 2 when the model was altered.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tasks.decision import read_decision
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
        self.decision = read_decision(self.about["decision"])
        self.outputs = ["probabilities"] + (["ood_score"] if self.about["ood_score"] else [])

    def pixels(self, source: Path | bytes) -> Pixels:
        """An image file as the model's input, uint8 S×S×3; raises UnreadableImage."""
        about = self.about["input"]
        values = [about[key] for key in ("size", "resize", "colour", "normalise", "margin")]
        return fit(read(source, about["max_pixels"]), *values)

    def predict(self, images: Pixels) -> list[dict[str, Any]]:
        """The server's answer to each of uint8 N×S×S×3 images, all but its filename."""
        found = self.session.run(self.outputs, {"images": np.ascontiguousarray(images)})
        return self.decision.answers(self.about["classes"], *found)


def main() -> int:
    """Answer each file as it comes; one that cannot be read is named, and passed over."""
    parser = argparse.ArgumentParser(description="Classify image files.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--json", action="store_true", help="the whole answer, a line an image")
    arguments, failed = parser.parse_args(), 0
    model = Model(Path(__file__).resolve().parent)
    for path in arguments.images:
        try:
            (answer,) = model.predict(model.pixels(path)[None])
        except UnreadableImage as error:
            sys.stderr.write(f"error: {path}: {error}\n")
            failed = 1
            continue
        short = [str(path), answer["label"], f"{answer['probability']:.4f}"]
        short += [said for said in ("abstain", "strange") if answer[said]]
        whole = json.dumps({"filename": str(path), **answer})
        sys.stdout.write((whole if arguments.json else "\t".join(short)) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
