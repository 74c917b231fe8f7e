"""ONNX's operators in PyTorch, as far as our graphs have them.

OPERATORS gives for each a function of its attributes and of those inputs that must be constants
(STATIC: shapes, axes, scales), which returns the function of its tensors. Opset 18 to 21.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers quantized_decomposed
from torch.nn import functional as F

Function = Callable[..., Tensor]
Attributes = dict[str, Any]
_INT8 = torch.ops.quantized_decomposed
DEQUANTIZE = "DequantizeLinear"
_TO_INT8 = 128  # uint8 activations are int8 ones, so much higher
_DTYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64}

# The positions of the inputs that must be constants, as numbers or lists of them.
STATIC: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "Expand": (1,),
    "Gather": (1,),
    "Range": (0, 1, 2),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
}


def _clip(a: Attributes, low: float | None = None, high: float | None = None) -> Function:
    return lambda x: torch.clamp(x, low, high)


def _conv(a: Attributes) -> Function:
    before, after = a["pads"][:2], a["pads"][2:]
    if before != after:
        raise ValueError(f"a convolution pads unevenly, {a['pads']}: that is not known here")
    more = a["strides"], before, a["dilations"], a["group"]
    return lambda x, weight, bias=None: F.conv2d(x, weight, bias, *more)


def _expand(a: Attributes, shape: list[int]) -> Function:
    return lambda x: x.expand([max(pair) for pair in zip(_padded(x, shape), shape, strict=True)])


def _padded(x: Tensor, shape: list[int]) -> list[int]:
    """The shape of `x` with ones in front, as long as `shape`."""
    return [1] * (len(shape) - x.ndim) + list(x.shape)


def _gather(a: Attributes, index: Any) -> Function:
    axis, rows = a.get("axis", 0), torch.tensor(index)

    def run(x: Tensor) -> Tensor:
        if rows.ndim == 0:
            return x.select(axis, index)
        found = torch.index_select(x, axis, rows.flatten())
        return found.reshape(*x.shape[:axis], *rows.shape, *x.shape[axis + 1 :])

    return run


def _gemm(a: Attributes) -> Function:
    if a.get("transA") or a.get("alpha", 1) != 1 or a.get("beta", 1) != 1:
        raise ValueError(f"a Gemm with {a} is not known here")
    if a.get("transB"):
        return F.linear
    return lambda x, weight, bias=None: F.linear(x, weight.t(), bias)


def _hard_sigmoid(a: Attributes) -> Function:
    slope, middle = a.get("alpha", 0.2), a.get("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and middle == 0.5:
        return F.hardsigmoid
    return lambda x: torch.clamp(x * slope + middle, 0, 1)


def _layer_norm(a: Attributes) -> Function:
    axis, epsilon = a.get("axis", -1), a.get("epsilon", 1e-5)
    return lambda x, weight, bias=None: F.layer_norm(x, x.shape[axis:], weight, bias, epsilon)


def _max_pool(a: Attributes) -> Function:
    kernel, strides, pads = a["kernel_shape"], a["strides"], a["pads"]
    if pads[:2] != pads[2:] or a.get("ceil_mode"):
        raise ValueError(f"a MaxPool with {a} is not known here")
    if kernel == [1, 1]:  # every other pixel, which backends do not take for pooling
        return lambda x: x[:, :, :: strides[0], :: strides[1]]
    return lambda x: F.max_pool2d(x, kernel, strides, pads[:2])


def quantize(scale: float, zero: int) -> Function:
    """QuantizeLinear to uint8, with a scale for the whole tensor, as int8."""
    more = scale, zero - _TO_INT8, -128, 127, torch.int8
    return lambda x: _INT8.quantize_per_tensor(x, *more)


def clip_as_quantized(scale: float, zero: int) -> Function:
    """What `quantize` and `dequantize` do to a float but for the rounding.

    The ends count: quantizers leave a ReLU out where the range of what follows begins at 0.
    """
    return lambda x: torch.clamp(x, -zero * scale, (255 - zero) * scale)


def dequantize(scale: float, zero: int) -> Function:
    """The inverse of `quantize` with the same numbers."""
    more = scale, zero - _TO_INT8, -128, 127, torch.int8
    return lambda x: _INT8.dequantize_per_tensor(x, *more)


def dequantize_weights(axis: int) -> Function:
    """Of int8 weights, with a scale for each channel along `axis`."""

    def run(weights: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
        more = axis, -128, 127, torch.int8
        found: Tensor = _INT8.dequantize_per_channel(weights, scales, zeros, *more)
        return found

    return run


def same(x: Tensor) -> Tensor:
    """The tensor itself."""
    return x


def _reduce(function: Function) -> Callable[..., Function]:
    """Of an operator along axes, which are dropped or kept as 1."""

    def made(a: Attributes, axes: list[int] | None = None) -> Function:
        kept = bool(a.get("keepdims", 1))
        return lambda x: function(x, axes or list(range(x.ndim)), keepdim=kept)

    return made


def _reshape(a: Attributes, shape: list[int]) -> Function:
    def run(x: Tensor) -> Tensor:
        kept = shape if a.get("allowzero") else [n or x.shape[i] for i, n in enumerate(shape)]
        return x.reshape(kept)

    return run


def _shape(a: Attributes) -> Function:
    return lambda x: torch.tensor(x.shape[a.get("start", 0) : a.get("end")])


def _slice(
    a: Attributes, starts: list[int], ends: list[int], axes: Any = None, steps: Any = None
) -> Function:
    count = len(starts)
    cuts = list(zip(axes or range(count), starts, ends, steps or [1] * count, strict=True))

    def run(x: Tensor) -> Tensor:
        parts = [slice(None)] * x.ndim
        for axis, start, end, step in cuts:
            parts[axis] = slice(start, min(end, x.shape[axis]), step)
        return x[tuple(parts)]

    return run


def _unsqueeze(a: Attributes, axes: list[int]) -> Function:
    def run(x: Tensor) -> Tensor:
        for axis in sorted(axes):
            x = x.unsqueeze(axis)
        return x

    return run


def _plain(function: Function) -> Callable[[Attributes], Function]:
    """Of an operator without attributes that count."""
    return lambda a: function


OPERATORS: dict[str, Callable[..., Function]] = {
    "Add": _plain(torch.add),
    "Cast": lambda a: lambda x: x.to(_DTYPES[a["to"]]),
    "Clip": _clip,
    "Concat": lambda a: lambda *x: torch.cat(x, a["axis"]),
    "Conv": _conv,
    "Div": _plain(torch.div),
    "Exp": _plain(torch.exp),
    "Expand": _expand,
    "Flatten": lambda a: lambda x: x.flatten(a.get("axis", 1)),
    "Gather": _gather,
    "Gelu": lambda a: lambda x: F.gelu(x, approximate=a.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": _plain(lambda x: x.mean((2, 3), keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(F.hardswish),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda a: lambda x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Log": _plain(torch.log),
    "MatMul": _plain(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Range": lambda a, start, end, step: lambda: torch.arange(start, end, step),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _plain(F.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda a: lambda x: torch.softmax(x, a.get("axis", -1)),
    "Squeeze": lambda a, axes=None: lambda x: x.squeeze() if axes is None else x.squeeze(axes),
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Transpose": lambda a: lambda x: x.permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
}
