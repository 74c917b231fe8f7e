"""The architectures, behind one `Classifier`: an embedding and a linear head on it.

`build` makes one from a ModelSpec; `save_model` and `load_model` keep it in a directory as
model.safetensors and model.json. torchvision is imported only for its own architectures.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from tasks.errors import TrainingError
from tasks.files import atomic_write, write_json
from tasks.schema import Architecture, Train
from tasks.training.residual import ResNetSmall

if TYPE_CHECKING:
    from tasks.data.shards import Shards
    from tasks.pixels import Images

WEIGHTS, SPEC = "model.safetensors", "model.json"
Moments = tuple[tuple[float, float, float], tuple[float, float, float]]
_IMAGENET: Moments = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CHUNK_BYTES = 4 << 20  # of pixels; counting them takes eight times that


class ModelSpec(BaseModel):
    """model.json: all that is needed to build the network and feed it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Architecture
    width: int = Field(ge=1, description="channels of resnet_small's first stage")
    depth: int = Field(ge=1, description="blocks per stage of resnet_small")
    classes: tuple[str, ...] = Field(min_length=2, description="names, in the order of the logits")
    size: int = Field(ge=8, description="side of the images in pixels")
    mean: tuple[float, float, float] = Field(description="of the channels, on the 0..1 scale")
    std: tuple[float, float, float] = Field(description="of the channels, on the 0..1 scale")


def spec_for(shards: "Shards", config: Train, moments: Moments) -> ModelSpec:
    """The spec of `config`'s network for these shards.

    Images are normalised by `moments` (see `channel_moments`); for pretrained weights by those
    of ImageNet, which the weights expect.
    """
    mean, std = _IMAGENET if config.pretrained else moments
    return ModelSpec(
        architecture=config.architecture,
        width=config.width,
        depth=config.depth,
        classes=shards.classes,
        size=shards.contract.size,
        mean=mean,
        std=std,
    )


def channel_moments(images: "Images") -> Moments:
    """Mean and standard deviation of each channel of uint8 N×S×S×3, on the 0..1 scale.

    A deviation under 1/255 (images of one colour) counts as 1/255.
    """
    total, squares = np.zeros(3), np.zeros(3)
    step = max(1, _CHUNK_BYTES // math.prod(images.shape[1:]))
    for start in range(0, len(images), step):
        chunk = images[start : start + step].reshape(-1, 3)
        for channel in range(3):  # exact: whole numbers
            counts = np.bincount(chunk[:, channel], minlength=256)
            total[channel] += counts @ np.arange(256)
            squares[channel] += counts @ np.arange(256) ** 2
    count = math.prod(images.shape) / 3
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1))
    return _triple(mean / 255), _triple(std / 255)


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


class Classifier(nn.Module):
    """A backbone that gives the embedding, and a head on it."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def embed(self, x: Tensor) -> Tensor:
        """Normalised float N×3×S×S to the embedding, float N×D."""
        return cast(Tensor, self.backbone(x))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised float N×3×S×S to logits, float N×C."""
        return cast(Tensor, self.head(self.embed(x)))


def build(spec: ModelSpec, pretrained: bool = False) -> Classifier:
    """A freshly initialised classifier (from torch's global random state), in channels_last.

    `pretrained` starts torchvision's architectures from their ImageNet weights; TrainingError
    when they are neither cached nor to be had from the network, or when the architecture
    has none.
    """
    if spec.architecture != "resnet_small":
        from tasks.training.imagenet import backbone

        model = Classifier(*backbone(spec.architecture, len(spec.classes), spec.size, pretrained))
    elif pretrained:
        raise TrainingError(
            "train.pretrained: resnet_small has no pretrained weights; set it to false, "
            "or choose another train.architecture"
        )
    else:
        trunk = ResNetSmall(spec.width, spec.depth, spec.size)
        model = Classifier(trunk, nn.Linear(trunk.features, len(spec.classes)))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def normalise(images: Tensor, spec: ModelSpec) -> Tensor:
    """uint8 N×S×S×3 to float N×3×S×S (channels_last), with the spec's mean and deviation."""
    x = images.permute(0, 3, 1, 2).float()
    mean = torch.tensor(spec.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=x.device).view(1, 3, 1, 1)
    return x.sub_(mean * 255).div_(std * 255)


def save_model(directory: Path, model: nn.Module, spec: ModelSpec) -> None:
    """Write model.safetensors and model.json into `directory`, each atomically."""
    from safetensors.torch import save

    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(directory / WEIGHTS) as stream:
        stream.write(save(tensors))
    write_json(directory / SPEC, spec.model_dump(mode="json"))


def load_model(directory: Path) -> tuple[Classifier, ModelSpec]:
    """Read what `save_model` wrote, in evaluation mode on the CPU; raises TrainingError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        text = (directory / SPEC).read_text(encoding="utf-8")
        spec = ModelSpec.model_validate(json.loads(text))
        model = build(spec)
        model.load_state_dict(load((directory / WEIGHTS).read_bytes()))
    except FileNotFoundError as error:
        raise TrainingError(f"no model at {error.filename}; `dvc repro train` makes it") from None
    except (ValueError, ValidationError, SafetensorError, RuntimeError) as error:
        raise TrainingError(
            f"the model in {directory} cannot be read ({error}); `dvc repro --force train` "
            "makes it anew"
        ) from None
    return model.eval(), spec
