"""Stochastic depth for any architecture (Huang et al. 2016, "Deep networks with stochastic depth").

In training an image skips a residual branch with a probability that rises linearly from the
first block to the last. torchvision brings the layer; where an architecture has none, a forward
hook calls it at the end of the branch, so the names of the weights stay.
"""

from typing import Any, cast

from torch import Tensor, nn


def use_stochastic_depth(network: nn.Module, probability: float) -> None:
    """Let the last residual branch be left out with `probability`, the l-th of L with l/L of it."""
    from torchvision.ops import StochasticDepth

    blocks = [(block, ends) for block in network.modules() if (ends := _branch_ends(block))]
    for number, (block, ends) in enumerate(blocks, 1):
        share = probability * number / len(blocks)
        for branch, end in enumerate(ends):
            if isinstance(end, StochasticDepth):
                end.p = share
            elif share:
                layer = StochasticDepth(share, "row")
                block.add_module(f"stochastic_depth{branch}", layer)  # to follow train() and eval()
                end.register_forward_hook(_Skip(layer))


class _Skip:
    """The hook. An object, not a function, so that a copy of the network has its own layer."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return cast(Tensor, self._layer(output))


def _branch_ends(block: Any) -> list[nn.Module]:
    """The last layer of each residual branch of a block; none for what is no such block."""
    match type(block).__name__:
        case "MBConv" | "FusedMBConv" | "CNBlock":
            return [block.stochastic_depth] if getattr(block, "use_res_connect", True) else []
        case "Block":
            return [block.norm2]
        case "BasicBlock":
            return [block.bn2]
        case "Bottleneck":
            return [block.bn3]
        case "InvertedResidual":
            branch = block.conv if hasattr(block, "conv") else block.block
            return [branch] if block.use_res_connect else []
        case "EncoderBlock":
            return [block.dropout, block.mlp]
    return []
