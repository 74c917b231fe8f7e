"""Another activation function for any architecture, with the initialisation that suits it."""

from collections.abc import Callable

from torch import nn

from tasks.schema import Activation

_LAYERS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
# What architectures use between their layers. The sigmoids of squeeze-and-excitation are gates.
_REPLACED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish)
_SLOPE = 0.01  # of nn.LeakyReLU


def use_activation(network: nn.Module, name: Activation) -> None:
    """Replace the activations between layers by `name` and initialise the convolutions for it.

    Rectifiers, the smooth ones too: He et al. 2015; tanh and sigmoid: Glorot & Bengio 2010.
    Networks with layer normalisation (ConvNeXt, vision transformers) keep the narrow
    initialisation of their authors, which does not depend on the activation.
    """
    for module in list(network.modules()):
        for child, layer in module.named_children():
            if isinstance(layer, _REPLACED):
                setattr(module, child, _LAYERS[name]())
    if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                _initialise(module, name)


def _initialise(layer: nn.Conv2d, name: Activation) -> None:
    if name == "tanh" or name == "sigmoid":
        nn.init.xavier_normal_(layer.weight, nn.init.calculate_gain(name))
    elif name == "leaky_relu":
        nn.init.kaiming_normal_(layer.weight, _SLOPE, "fan_out", "leaky_relu")
    else:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
