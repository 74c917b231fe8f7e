"""torchvision's architectures as backbones, adapted to small images.

Under 64 pixels the first two halvings of the resolution are left out in every family (as
ResNets are used on CIFAR, He et al. 2016), so that deep stages still see more than a pixel or
two. A vision transformer takes patches that divide the side.
"""

from typing import Any, NamedTuple

import torchvision
from torch import nn

from tasks.errors import TrainingError

_SMALL = 64
_GRID = 7  # patches a side that a vision transformer needs; its authors' least (32 in 224)
_MOST = 16  # patches a side that another patch may give: attention grows with the fourth power
# The last layer of each family, which ours takes the place of.
_HEADS = {
    "resnet": "fc",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3": "classifier.3",
    "efficientnet": "classifier.1",
    "convnext": "classifier.2",
    "vit": "heads.head",
}


class Backbone(NamedTuple):
    """A network without its last layer (float N×3×S×S → N×features), and its own dropout."""

    network: nn.Module
    features: int
    dropout: float


def backbone(architecture: str, size: int) -> Backbone:
    """The torchvision network of that name for size×size images, of random weights.

    Raises TrainingError for a size that a vision transformer cannot divide.
    """
    if architecture.startswith("vit"):
        network = _transformer(architecture, size)
    else:
        network = torchvision.models.get_model(architecture, weights=None)
        if size < _SMALL:
            _keep_resolution(network)
    name = head_of(architecture)
    features = int(network.get_submodule(name).in_features)
    network.set_submodule(name, nn.Identity())
    return Backbone(network, features, _take_dropout(network.get_submodule(name.split(".")[0])))


def head_of(architecture: str) -> str:
    """The name that torchvision gives the last layer."""
    return next(head for family, head in _HEADS.items() if architecture.startswith(family))


def _take_dropout(end: nn.Module) -> float:
    """Take the dropout before the last layer away, and give its probability."""
    own = 0.0
    for name, layer in end.named_children():
        if isinstance(layer, nn.Dropout):
            own = layer.p
            setattr(end, name, nn.Identity())
    return own


def _keep_resolution(network: Any) -> None:
    """Leave out the first two halvings."""
    if hasattr(network, "maxpool"):
        network.conv1 = _stem(network.conv1.out_channels, bias=False)
        network.maxpool = nn.Identity()
        return
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    if strided[0].stride == (4, 4):  # ConvNeXt: both at once
        network.features[0][0] = _stem(strided[0].out_channels, bias=True)
        nn.init.trunc_normal_(network.features[0][0].weight, std=0.02)
        nn.init.zeros_(network.features[0][0].bias)
        return
    for layer in strided[:2]:
        layer.stride = (1, 1)


def _stem(channels: int, bias: bool) -> nn.Conv2d:
    layer = nn.Conv2d(3, channels, 3, 1, 1, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _transformer(architecture: str, size: int) -> Any:
    """A vision transformer whose patches divide the side."""
    own = int(architecture.rsplit("_", 1)[1])
    patch = _patch(own, size)
    builder = torchvision.models.get_model_builder(architecture)
    network = builder(weights=None, image_size=size if size % own == 0 else own)
    if patch == own:
        return network
    grid, width = size // patch, network.hidden_dim
    network.image_size, network.patch_size, network.seq_length = size, patch, grid**2 + 1
    network.conv_proj = nn.Conv2d(3, width, patch, patch)
    nn.init.trunc_normal_(network.conv_proj.weight, std=(3 * patch**2) ** -0.5)
    nn.init.zeros_(network.conv_proj.bias)
    position = network.encoder.pos_embedding.new_empty(1, grid**2 + 1, width)
    network.encoder.pos_embedding = nn.Parameter(position.normal_(std=0.02))
    return network


def _patch(own: int, size: int) -> int:
    """The architecture's own patch, or the largest that divides the side into seven or more."""
    if size % own == 0 and size // own >= _GRID:
        return own
    patch = next(p for p in range(max(1, min(own, size // _GRID)), 0, -1) if size % p == 0)
    if size // patch > _MOST:
        raise TrainingError(
            f"prepare.size {size} cannot be divided into patches for a vision transformer; take "
            f"{8 * (size // 8)} or {8 * (size // 8 + 1)}, or another train.architecture"
        )
    return patch
