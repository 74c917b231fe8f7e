"""A compact residual network for small images.

Takes float N×3×S×S, gives the pooled features N×4·width. Post-activation blocks (He et al.
2016a): every batch norm follows a convolution, so it folds away at export and int8
quantization sees one operator instead of two.
"""

from typing import cast

from torch import Tensor, nn

STAGES = 3
_SMALL, _MEDIUM = 64, 128  # sides from which the stem reduces by 2, then by 4


class ResNetSmall(nn.Module):
    """A stem and three stages of `depth` blocks with width, 2·width and 4·width channels.

    Args:
        width: channels of the first stage.
        depth: residual blocks in each stage.
        size: side of the images in pixels; from 64 the stem halves it, from 128 quarters it.
    """

    def __init__(self, width: int, depth: int, size: int) -> None:
        super().__init__()
        self.stem = _stem(width, size)
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(STAGES):
            for block in range(depth):
                stride = 2 if stage and block == 0 else 1
                blocks.append(Block(channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features, float N×features."""
        return cast(Tensor, self.pool(self.blocks(self.stem(x))).flatten(1))


class Block(nn.Module):
    """Two 3×3 convolutions beside an identity, or a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            # Every stride-th pixel by a pooling of one pixel, not by the convolution's own stride:
            # oneDNN (torch 2.13) writes out of bounds in the backward pass of a strided 1×1
            # convolution in channels_last with fewer than 16 channels and an odd batch.
            pick: list[nn.Module] = [nn.MaxPool2d(1, stride)] if stride != 1 else []
            self.shortcut = nn.Sequential(
                *pick, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Float N×inputs×H×W to N×outputs×H/stride×W/stride."""
        y = self.activation(self.norm1(self.conv1(x)))
        return cast(Tensor, self.activation(self.norm2(self.conv2(y)) + self.shortcut(x)))


def _stem(width: int, size: int) -> nn.Sequential:
    stride = 1 if size < _SMALL else 2
    layers = [nn.Conv2d(3, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.MaxPool2d(3, 2, 1)] if size >= _MEDIUM else []))
