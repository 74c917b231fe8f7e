"""ONNX → ExecuTorch: python executorch.py MODEL.onnx IMAGES.npy FOLDER PROBABILITIES.npy

Runs in an environment of its own (executorch.txt). Writes model.pte for its XNNPACK backend (the
CPUs of phones), for one image at a time; int8 layers stay int8. What ExecuTorch's own runtime
answers on the images goes to PROBABILITIES.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime

sys.path.append(str(Path(__file__).parent))
import program


def main(model: str, images: str, folder: str, answers: str) -> None:
    """Convert, write, read again, and run one image at a time."""
    network = program.load(model, int8=True)
    exported = torch.export.export(network, (network.example(),), strict=False)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    target = Path(folder, "model.pte")
    target.write_bytes(lowered.to_executorch().buffer)
    method = Runtime.get().load_program(target).load_method("forward")
    found = [method.execute([torch.from_numpy(image[None])])[0] for image in np.load(images)]
    np.save(answers, torch.cat(found).numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
