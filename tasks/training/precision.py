"""Mixed precision and compilation of the network, where the device can."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tasks.errors import TrainingError

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Runs the network in `name` arithmetic; weights and updates stay float32.

    fp16 scales the loss so that small gradients do not vanish, and leaves out a step whose
    gradients overflow (Micikevicius et al. 2018, "Mixed precision training").
    """

    def __init__(self, name: Literal["fp32", "bf16", "fp16"], device: torch.device) -> None:
        if name == "fp16" and device.type == "cpu":
            raise TrainingError(
                "train.precision is fp16, but training runs on the CPU, which computes in fp16 "
                "slowly and without loss scaling; set it to bf16 or fp32"
            )
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """The context of the forward pass."""
        mixed = self.name != "fp32"
        dtype = _TYPES[self.name] if mixed else None
        return torch.autocast(self.device.type, dtype, enabled=mixed)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` to those there are."""
        scaled = self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: Optimizer, weights: Iterable[Tensor], clip: float) -> Tensor:
        """Clip the gradients of `weights` to the norm `clip`, and step; gives the norm before."""
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(weights, clip)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm


def compiled(model: nn.Module) -> nn.Module:
    """`torch.compile` of the network, with the same weights; it compiles on its first batch."""
    return cast(nn.Module, torch.compile(model))


@contextmanager
def compile_advice() -> Iterator[None]:
    """Turn a failed compilation into a TrainingError."""
    from torch._dynamo.exc import TorchDynamoException  # a second: only where asked for
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        yield
    except (TorchDynamoException, CppCompileError, InvalidCxxCompiler) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise TrainingError(
            f"train.compile: the network cannot be compiled on this machine ({reason}); install "
            "a C++ compiler (and Triton for CUDA), or set it to false"
        ) from None
