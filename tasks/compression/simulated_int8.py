"""A PyTorch network that computes as its int8 graph would, and can be trained so.

Weights are rounded to int8 with a scale per output channel, activations to uint8 with the range
that calibration gives them, at the places where tasks.compression.int8 has its QuantizeLinear/
DequantizeLinear pairs; gradients pass straight through the rounding, and not where a value is
clipped (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference"; Bengio et al. 2013). The places are found by torch.fx.

Batch norms keep their statistics: they are folded into the weights at export, and with a scale
per channel rounding before or after folding is the same (Nagel et al. 2021, "A White Paper on
Neural Network Quantization", static folding). Ranges stay as they were calibrated: they are
found again for the export.
"""

import operator
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tasks.compression.calibration import Range, collect, ranges
from tasks.errors import CompressionError
from tasks.pixels import Pixels
from tasks.runtime import Floats
from tasks.schema import RangeMethod
from tasks.training.models import Classifier, ModelSpec, normalise

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RECTIFIERS = (nn.ReLU, nn.Hardtanh)  # the latter is ReLU6, too: a Clip
_SAME = ("Identity", "Dropout", "StochasticDepth", "MaxPool2d")  # no rounding of their own
_BATCH = 16


def simulate_int8(
    model: Classifier, spec: ModelSpec, images: Pixels, method: RangeMethod
) -> Classifier:
    """`model` with int8 simulated: training it trains `model`, whose parameters it shares.

    `images` uint8 N×S×S×3 calibrate the activations by `method`. The head stays in float, as in
    the graph. Raises CompressionError for a vision transformer.
    """
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        raise CompressionError(
            "the attention of a vision transformer cannot be simulated in int8; set "
            "compress.quantize.finetune_epochs to 0, or take another architecture"
        )
    network = _traced(model.backbone)
    linear = _linear_layers(network, spec)
    names = _insert_places(network, linear)
    # Calibrated in float, as the graph is.
    found = ranges(collect(lambda: _values(network, names, images, spec)), method)
    for name in names:
        network.set_submodule(name, _Activation(found[name]))
    for node in network.graph.nodes:
        layer = _module(network, node)
        if isinstance(layer, nn.Conv2d) or node in linear:
            network.set_submodule(node.target, _Weighted(layer))
    return _Simulated(network, model.head, model.dropout.p)


class _Simulated(Classifier):
    """A classifier whose batch norms keep their statistics while it is trained."""

    def train(self, mode: bool = True) -> "_Simulated":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


class _Activation(nn.Module):
    """Rounds to uint8 within a range, widened to hold zero, and back."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bounds: Range) -> None:
        super().__init__()
        low, high = min(0.0, bounds[0]), max(0.0, bounds[1])
        scale = (high - low) / 255 or 1.0
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(round(-low / scale), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Float of any shape."""
        return torch.fake_quantize_per_tensor_affine(x.float(), self.scale, self.zero_point, 0, 255)


class _Weighted(nn.Module):
    """A convolution or linear layer whose weights are rounded to int8, −127..127, and back."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """As the layer."""
        layer, weight = self.layer, self._rounded()
        if isinstance(layer, nn.Conv2d):
            return cast(Tensor, layer._conv_forward(x, weight, layer.bias))
        return F.linear(x, weight, layer.bias)

    def _rounded(self) -> Tensor:
        weight = self.layer.weight
        scale = weight.detach().abs().flatten(1).amax(1) / 127
        scale = torch.where(scale > 0, scale, 1.0)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


class _Tracer(fx.Tracer):
    """Whole layers are nodes, those of torchvision too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


def _traced(backbone: nn.Module) -> fx.GraphModule:
    return fx.GraphModule(backbone, _Tracer().trace(backbone))


def _linear_layers(network: fx.GraphModule, spec: ModelSpec) -> list[fx.Node]:
    """The linear layers on every position: those on pooled features stay in float."""
    positions = []

    class Shapes(fx.Interpreter):
        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            if isinstance(self.fetch_attr(target), nn.Linear) and args[0].ndim > 2:
                positions.append(target)
            return super().call_module(target, args, kwargs)

    with torch.no_grad():
        Shapes(network.eval()).run(torch.zeros(1, 3, spec.size, spec.size))
    return [node for node in network.graph.nodes if node.target in positions]


def _insert_places(network: fx.GraphModule, linear: list[fx.Node]) -> list[str]:
    """Put an identity, by the returned names, wherever activations will be rounded."""
    names = []
    for number, node in enumerate(_places(network, linear)):
        names.append(f"int8_activation{number}")
        network.add_submodule(names[-1], nn.Identity())
        with network.graph.inserting_after(node):
            place = network.graph.call_module(names[-1], (node,))
        node.replace_all_uses_with(place)
        place.args = (node,)  # which that made its own
    network.recompile()
    return names


def _places(network: fx.GraphModule, linear: list[fx.Node]) -> list[fx.Node]:
    """The nodes whose values are rounded, in order: what int8 operators take and give.

    Of a rectifier after an int8 operator only the result is, unless something else reads what
    it takes. Where `linear` layers do the work, sums and rectifiers are no int8 operators.
    """
    found: dict[fx.Node, None] = {}
    for node in network.graph.nodes:
        layer = _module(network, node)
        if isinstance(layer, nn.Conv2d) or node in linear:
            found |= {_source(network, node.args[0]): None, _normalised(network, node): None}
        elif not linear and _is_sum(node):
            found |= dict.fromkeys([*(_source(network, one) for one in node.args), node])
        elif not linear and isinstance(layer, _RECTIFIERS):
            source = _source(network, node.args[0])
            if source in found:
                if len(source.users) == 1:
                    del found[source]
                found[node] = None
    order = list(network.graph.nodes)
    return sorted(found, key=order.index)


def _source(network: fx.GraphModule, node: Any) -> fx.Node:
    """The node that makes these values, in front of what changes none of them in int8."""
    while type(_module(network, node)).__name__ in _SAME:
        node = node.args[0]
    return cast(fx.Node, node)


def _normalised(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    """A layer with the batch norm that is folded into it."""
    users = list(node.users)
    follows = len(users) == 1 and isinstance(_module(network, users[0]), _BatchNorm)
    return users[0] if follows else node


def _is_sum(node: fx.Node) -> bool:
    both = [isinstance(one, fx.Node) for one in node.args]
    return node.target in _ADDITIONS and both == [True, True]


def _module(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def _values(
    network: nn.Module, names: list[str], images: Pixels, spec: ModelSpec
) -> Iterator[tuple[str, Floats]]:
    """What passes the modules of these names, batch by batch."""
    seen: list[tuple[str, Floats]] = []

    def note(name: str) -> Any:
        # a copy: layers after it may work in place
        return lambda _, inputs: seen.append((name, inputs[0].float().numpy().copy()))

    hooks = [network.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    try:
        for start in range(0, len(images), _BATCH):
            with torch.no_grad():
                network(normalise(torch.from_numpy(images[start : start + _BATCH]), spec))
            yield from seen
            seen.clear()
    finally:
        for hook in hooks:
            hook.remove()
