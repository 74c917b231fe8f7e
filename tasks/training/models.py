"""The architectures, behind one `Classifier`: an embedding and a linear head on it.

`build` makes one from a ModelSpec, with random weights or those of `tasks.training.starting`;
`save_model` and `load_model` keep it in a directory as model.safetensors and model.json.
torchvision is imported only for its own architectures and what it brings for all.
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
from tasks.schema import Activation, Architecture, Train
from tasks.training.activations import use_activation
from tasks.training.residual import ResNetSmall
from tasks.training.stochastic_depth import use_stochastic_depth
from tasks.training.to_device import sent

if TYPE_CHECKING:
    from tasks.data.shards import Shards
    from tasks.pixels import Images

WEIGHTS, SPEC = "model.safetensors", "model.json"
Moments = tuple[tuple[float, float, float], tuple[float, float, float]]
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
    activation: Activation = Field("default", description="default: the architecture's own")
    dropout: float | None = Field(None, description="before the head; None: its own")
    stochastic_depth: float | None = Field(None, description="of the last branch; None: its own")


def spec_for(shards: "Shards", config: Train, moments: Moments) -> ModelSpec:
    """The spec of `config`'s network for these shards.

    Images are normalised by `moments` (see `channel_moments`), or as the weights expect that
    training starts from. Raises TrainingError when those cannot be read.
    """
    if config.weights is not None:
        from tasks.training.starting import expected_moments

        moments = expected_moments(config.weights) or moments
    mean, std = moments
    return ModelSpec(
        architecture=config.architecture,
        width=config.width,
        depth=config.depth,
        classes=shards.classes,
        size=shards.contract.size,
        mean=mean,
        std=std,
        activation=config.activation,
        dropout=config.dropout,
        stochastic_depth=config.stochastic_depth,
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
    """A backbone that gives the embedding, and a linear head on it (with dropout between)."""

    def __init__(self, backbone: nn.Module, head: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def embed(self, x: Tensor) -> Tensor:
        """Normalised float N×3×S×S to the embedding, float N×D."""
        return cast(Tensor, self.backbone(x))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised float N×3×S×S to logits, float N×C."""
        return cast(Tensor, self.head(self.dropout(self.embed(x))))


def build(spec: ModelSpec, weights: str | None = None) -> Classifier:
    """A classifier in channels_last, freshly initialised from torch's global random state.

    `weights` is train.weights: with it the network starts from those, see
    `tasks.training.starting`. TrainingError when they cannot be had or do not fit.
    """
    model = _network(spec)
    if spec.activation != "default":
        use_activation(model.backbone, spec.activation)
    if spec.stochastic_depth is not None:
        use_stochastic_depth(model.backbone, spec.stochastic_depth)
    if weights is not None:
        from tasks.training.starting import start_from

        start_from(model, spec, weights)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _network(spec: ModelSpec) -> Classifier:
    own = 0.0
    if spec.architecture == "resnet_small":
        trunk: nn.Module = (small := ResNetSmall(spec.width, spec.depth, spec.size))
        features = small.features
    else:
        from tasks.training.backbones import backbone

        trunk, features, own = backbone(spec.architecture, spec.size)
    dropout = own if spec.dropout is None else spec.dropout
    return Classifier(trunk, nn.Linear(features, len(spec.classes)), dropout)


def normalise(images: Tensor, spec: ModelSpec) -> Tensor:
    """uint8 N×S×S×3 to float N×3×S×S (channels_last), with the spec's mean and deviation."""
    x = images.permute(0, 3, 1, 2).float()
    mean = sent(torch.tensor(spec.mean), x.device).view(1, 3, 1, 1)
    std = sent(torch.tensor(spec.std), x.device).view(1, 3, 1, 1)
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
