"""MIL's operators in torch, one function each: its parameters are the operator's inputs under their MIL names.

What computes element by element, reduces and multiplies is here; the table joins the other families' files.
Semantics and defaults: coremltools' operator definitions up to iOS 18. Operators compute in float32; the interpreter
rounds each result to the type that the program declares. An input that a function does not take is an error there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeformer_converters.mil.program import along_axis, axes_of, several
from edgeformer_converters.mil.sequence_operators import LIST_OPERATORS, NORM_OPERATORS, RECURRENT_OPERATORS
from edgeformer_converters.mil.shape_operators import INDEX_OPERATORS, SHAPE_OPERATORS
from edgeformer_converters.mil.window_operators import IMAGE_OPERATORS, WINDOW_OPERATORS

INTEGER_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


def _unary(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x: function(torch.as_tensor(x))


def _binary(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, y: function(torch.as_tensor(x), torch.as_tensor(y))


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduction(x: Tensor, axes: Tensor | None = None, keep_dims: bool = False) -> Tensor:
        return function(x, axes_of(axes, x), keepdim=keep_dims)

    return reduction


def _real_div(x: Tensor, y: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise ValueError("real_div of integers is not supported: its rounding is not specified")
    return x / y


def _product(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """1 / sqrt(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """The natural logarithm of x + epsilon."""
    return torch.log(x + epsilon)


def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """1 / (x + epsilon)."""
    return 1.0 / (x + epsilon)


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """GELU by the error function, or its tanh or sigmoid approximation."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """x limited to alpha..beta."""
    return x.clamp(alpha, beta)


def cast(x: Tensor | float, dtype: str) -> Tensor:
    """x as another type; a float becomes an integer by truncation."""
    target = torch.bool if dtype == "bool" else torch.float32 if dtype.startswith("fp") else torch.int32
    return torch.as_tensor(x).to(target)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) times weight (out, in) transposed, plus bias (out,)."""
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Batched matrix product, either factor transposed."""
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


def einsum(values: Sequence[Tensor], equation: str) -> Tensor:
    """Einstein summation of two tensors."""
    return torch.einsum(equation, *several(values))


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Softmax along one axis."""
    return torch.softmax(x, axis)


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attention with the scale 1 / sqrt(head dim); a boolean mask is true where attention is allowed."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)


def select(cond: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """a where the condition holds, else b."""
    return torch.where(torch.as_tensor(cond), torch.as_tensor(a), torch.as_tensor(b))


def quantize(
    input: Tensor, scale: Tensor | float, output_dtype: str, zero_point: Tensor | int = 0, axis: int = 0
) -> Tensor:
    """round(input / scale) + zero_point, saturated to the output's type."""
    factors, zeros = (along_axis(value, axis, input.dim()) for value in (scale, zero_point))
    low, high = INTEGER_RANGES[output_dtype]
    return (torch.round(input / factors) + zeros).clamp(low, high).to(torch.int32)


def dequantize(input: Tensor, scale: Tensor | float, zero_point: Tensor | int = 0, axis: int = 0) -> Tensor:
    """(input - zero_point) * scale."""
    factors, zeros = (along_axis(value, axis, input.dim()) for value in (scale, zero_point))
    return (input - zeros) * factors


def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """x, or alpha x below zero, and no more than beta."""
    return torch.where(x >= 0, x, alpha * x).clamp(max=beta)


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """x (B, C, ...), or alpha (C,) x below zero."""
    return torch.where(x >= 0, x, along_axis(alpha, 1, x.dim()) * x)


def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha log(1 + exp(beta x)), with alpha and beta (C,) for x (B, C, ...)."""
    factor, slope = (along_axis(value, 1, x.dim()) for value in (alpha, beta))
    return factor * torch.logaddexp(slope * x, torch.zeros(()))


def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Running sums along an axis, from the end if `reverse`; `exclusive` leaves each value out of its own."""
    turned = x.flip(axis) if reverse else x
    sums = turned.cumsum(axis, dtype=x.dtype)
    sums = sums - turned if exclusive else sums
    return sums.flip(axis) if reverse else sums


UNARY: Mapping[str, Callable[..., Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "identity": lambda x: x,
    "logical_not": torch.logical_not,
    "relu": torch.relu,
    "relu6": F.relu6,
    "round": torch.round,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": F.silu,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}

BINARY: Mapping[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": _real_div,
    "sub": torch.sub,
}

OPERATORS: Mapping[str, Callable[..., Any]] = {
    **{name: _unary(function) for name, function in UNARY.items()},
    **{name: _binary(function) for name, function in BINARY.items()},
    "clamped_relu": clamped_relu,
    "clip": clip,
    "elu": lambda x, alpha: F.elu(x, alpha),
    "gelu": gelu,
    "inverse": inverse,
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, alpha),
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "log": log,
    "prelu": prelu,
    "rsqrt": rsqrt,
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "softplus_parametric": softplus_parametric,
    "threshold": lambda x, alpha: x.clamp(min=alpha),
    "thresholded_relu": lambda x, alpha: torch.where(x >= alpha, x, 0.0),
    "reduce_l1_norm": _reduction(lambda x, axes, keepdim: x.abs().sum(axes, keepdim)),
    "reduce_l2_norm": _reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim).sqrt()),
    "reduce_log_sum": _reduction(lambda x, axes, keepdim: x.sum(axes, keepdim).log()),
    "reduce_log_sum_exp": _reduction(torch.logsumexp),
    "reduce_max": _reduction(torch.amax),
    "reduce_mean": _reduction(torch.mean),
    "reduce_min": _reduction(torch.amin),
    "reduce_prod": _reduction(_product),
    "reduce_sum": _reduction(torch.sum),
    "reduce_sum_square": _reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim)),
    "cast": cast,
    "cumsum": cumsum,
    "dequantize": dequantize,
    "einsum": einsum,
    "linear": linear,
    "matmul": matmul,
    "quantize": quantize,
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "select": select,
    "softmax": softmax,
    **IMAGE_OPERATORS,
    **INDEX_OPERATORS,
    **LIST_OPERATORS,
    **NORM_OPERATORS,
    **RECURRENT_OPERATORS,
    **SHAPE_OPERATORS,
    **WINDOW_OPERATORS,
}
