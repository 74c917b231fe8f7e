"""ONNX → TensorFlow Lite: python tflite.py MODEL.onnx IMAGES.npy FOLDER PROBABILITIES.npy

Runs in an environment of its own (tflite.txt). Writes model.tflite, for one image at a time. What
LiteRT's interpreter answers on the images goes to PROBABILITIES.
"""

import sys
from pathlib import Path

import litert_torch
import numpy as np
from ai_edge_litert.interpreter import Interpreter

sys.path.append(str(Path(__file__).parent))
import program


def main(model: str, images: str, folder: str, answers: str) -> None:
    """Convert, write, read again, and run one image at a time."""
    network = program.load(model, int8=False)
    target = f"{folder}/model.tflite"
    litert_torch.convert(network, (network.example(),)).export(target)
    run = Interpreter(target, num_threads=1).get_signature_runner()
    (given,) = run.get_input_details()
    found = [run(**{given: image[None]})["output_0"] for image in np.load(images)]
    np.save(answers, np.concatenate(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
