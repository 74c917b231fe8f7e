"""The names of the networks and activations that can be trained."""

from typing import Literal

Architecture = Literal[
    "resnet_small",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_v2_s",
    "convnext_tiny",
    "convnext_small",
    "vit_b_16",
    "vit_b_32",
]
Activation = Literal[
    "default", "relu", "leaky_relu", "silu", "gelu", "hardswish", "tanh", "sigmoid"
]
