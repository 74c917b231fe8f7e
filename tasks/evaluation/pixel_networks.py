"""Networks as functions of pixels, so that what is asked of one can be asked of the other.

Both take float N×3×S×S in 0..255 and give logits N×C: the fp32 network of PyTorch, which has
gradients, and the deployed graph, which has none and sees whole levels only.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tasks.data.shards import Shards
from tasks.errors import CompressionError, TrainingError
from tasks.pixels import Pixels
from tasks.runtime import RuntimeName, open_model
from tasks.training.models import Classifier, ModelSpec, load_model

MODEL = Path("data/model")
# The second input of these holds what the network learnt, perhaps behind one of the others.
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_BETWEEN = {"DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity"}


class PixelClassifier(nn.Module):
    """The fp32 network, its normalisation inside; its weights get no gradients."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Classifier, spec: ModelSpec) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.spec = spec
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Float N×3×S×S in 0..255 to logits, float N×C."""
        logits: Tensor = self.model((pixels - self.mean) / self.std)
        return logits


class GraphClassifier:
    """An ONNX file, or its bytes, on its runtime; pixels are rounded to whole levels."""

    def __init__(self, model: Path | bytes, runtime: RuntimeName) -> None:
        # One thread: the same sums in the same order, however many cores there are.
        self._run = open_model(model, runtime, 1, ["logits"])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Float N×3×S×S in 0..255 to logits, float N×C, without gradients."""
        return torch.from_numpy(self._run(as_images(pixels))[0])


def fp32_network(shards: Shards, folder: Path = MODEL) -> PixelClassifier:
    """The trained network; raises TrainingError when it is not there or of other images."""
    model, spec = load_model(folder)
    if (spec.classes, spec.size) != (shards.classes, shards.contract.size):
        raise TrainingError(
            f"{folder} was trained on {len(spec.classes)} classes at {spec.size} pixels, "
            f"{shards.path} holds {len(shards.classes)} at {shards.contract.size}; "
            "run `dvc repro train`"
        )
    return PixelClassifier(model, spec)


def as_pixels(images: Pixels) -> Tensor:
    """uint8 N×S×S×3 to float N×3×S×S in 0..255."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().contiguous()


def as_images(pixels: Tensor) -> Pixels:
    """Float N×3×S×S in 0..255 to the nearest uint8 N×S×S×3."""
    levels = pixels.detach().round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


def shuffled(source: Path, seed: int) -> bytes:
    """The ONNX file `source` with the weights of each layer in a random order.

    It has forgotten what it learnt, and its layers keep their shapes and ranges. Raises
    CompressionError for a graph whose layers hold no weights.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    makers = {name: node for node in model.graph.node for name in node.output}
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    random, found = np.random.default_rng(seed), set[str]()
    for node in model.graph.node:
        if node.op_type not in _LAYERS:
            continue
        name = node.input[1]
        while name in makers and makers[name].op_type in _BETWEEN:
            name = makers[name].input[0]
        if name in held and name not in found:
            values = numpy_helper.to_array(held[name])
            mixed = random.permutation(values.ravel()).reshape(values.shape)
            held[name].CopyFrom(numpy_helper.from_array(mixed, name))
            found.add(name)
    if not found:
        raise CompressionError(f"{source} has no layer with weights, so none can be shuffled")
    return bytes(model.SerializeToString())
