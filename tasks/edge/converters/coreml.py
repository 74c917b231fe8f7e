"""ONNX → Core ML: python coreml.py MODEL.onnx IMAGES.npy FOLDER PROBABILITIES.npy

Runs in an environment of its own (coreml.txt). Writes model.mlpackage, an ML program in float32
for one RGB image at a time. Core ML runs on Apple's systems alone: what the PyTorch program that
it is made from answers on the images goes to PROBABILITIES, and the package is read again.
"""

import sys
from pathlib import Path

import coremltools
import numpy as np
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parent))
import program


class _Image(nn.Module):
    """The program behind Core ML's own layout of an image, float 1×3×S×S of 0..255."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(images.permute(0, 2, 3, 1)))


def main(model: str, images: str, folder: str, answers: str) -> None:
    """Convert, write, read again; run the PyTorch program one image at a time."""
    network = program.load(model, int8=False)
    example = network.example().float().permute(0, 3, 1, 2)
    traced = torch.jit.trace(_Image(network).eval(), example)  # type: ignore[no-untyped-call]
    converted = coremltools.convert(
        traced,
        inputs=[coremltools.ImageType(name="images", shape=tuple(example.shape))],
        outputs=[coremltools.TensorType(name=name) for name in network.outputs],
        minimum_deployment_target=coremltools.target.iOS16,
        compute_precision=coremltools.precision.FLOAT32,
    )
    target = f"{folder}/model.mlpackage"
    converted.save(target)
    written = coremltools.models.MLModel(target, skip_model_load=True).get_spec()
    if [one.name for one in written.description.output] != network.outputs:
        raise ValueError("the package that was written has other outputs than the bundle")
    np.save(answers, program.run(network, np.load(images)))


if __name__ == "__main__":
    main(*sys.argv[1:])
