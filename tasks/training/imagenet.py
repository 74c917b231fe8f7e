"""torchvision's architectures as backbones, adapted to small images, with ImageNet weights.

Under 64 pixels the stem keeps the full resolution: a 3×3 convolution of stride 1 and no
max-pooling (as ResNets are used on CIFAR, He et al. 2016), so that deep stages still see
more than a pixel or two.
"""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from tasks.errors import TrainingError

_SMALL = 64


def backbone(
    architecture: str, classes: int, size: int, pretrained: bool
) -> tuple[nn.Module, nn.Module]:
    """The network without its last layer (N×3×S×S → N×D), and a new head (N×D → N×classes).

    Raises TrainingError when `pretrained` weights cannot be had.
    """
    network: Any = torchvision.models.get_model(architecture, weights=None)
    if pretrained:
        network.load_state_dict(_weights(architecture))
    if size < _SMALL:
        _keep_resolution(network, architecture)
    return _split(network, architecture, classes)


def _split(network: Any, architecture: str, classes: int) -> tuple[nn.Module, nn.Module]:
    if architecture == "resnet18":
        head: nn.Module = nn.Linear(network.fc.in_features, classes)
        network.fc = nn.Identity()
        return network, head
    *early, dropout, last = network.classifier
    network.classifier = nn.Sequential(*early)
    return network, nn.Sequential(dropout, nn.Linear(last.in_features, classes))


def _keep_resolution(network: Any, architecture: str) -> None:
    if architecture != "resnet18":
        network.features[0][0].stride = (1, 1)
        return
    wide: Tensor = network.conv1.weight
    network.conv1 = nn.Conv2d(3, wide.shape[0], 3, 1, 1, bias=False)
    with torch.no_grad():  # the middle of the 7×7 filters: pretrained colours and edges stay
        network.conv1.weight.copy_(wide[:, :, 2:5, 2:5])
    network.maxpool = nn.Identity()


def _weights(architecture: str) -> Mapping[str, Any]:
    """ImageNet weights from torch's cache, or from the network into the cache."""
    weights = torchvision.models.get_model_weights(architecture).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state: Mapping[str, Any] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError(
            f"pretrained weights of {architecture} are not at {file} and cannot be fetched "
            f"({error}); put {weights.url} there, or set train.pretrained to false"
        ) from None
    return state
