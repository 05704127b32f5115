"""MIL's operators that slide a window over space: convolutions and pools; see `mil_operators` for the conventions.

`pad_type` is "valid" (none), "custom" (`pad`, before and after each axis), "same" (as little as keeps
ceil(size / stride) positions, the odd one behind) or "same_lower" (the odd one in front).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeformer_converters.mil.arguments import ints, pad_pairs

Pads = list[tuple[int, int]]


def _per_axis(values: Tensor | None, rank: int) -> list[int]:
    return [1] * rank if values is None else ints(values)


def _reach(kernel: list[int], dilations: list[int]) -> list[int]:
    """What a kernel covers from its first to its last tap, per axis."""
    return [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]


def _pads(pad_type: str, pad: Tensor | None, sizes: list[int], reach: list[int], strides: list[int]) -> Pads:
    """How much goes before and after each spatial axis."""
    kind = pad_type.lower()
    if kind in {"valid", "custom"}:
        return [(0, 0)] * len(sizes) if kind == "valid" or pad is None else pad_pairs(pad)
    totals = [
        max(0, stride * -(-size // stride) - size + each - stride)
        for size, each, stride in zip(sizes, reach, strides, strict=True)
    ]
    smaller = [(total // 2, total - total // 2) for total in totals]
    halves = {"same": smaller, "same_lower": [(after, before) for before, after in smaller]}
    if kind not in halves:
        raise ValueError(f"pad_type {pad_type!r} is not supported")
    return halves[kind]


def _padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    return F.pad(x, [size for pair in reversed(pads) for size in pair], value=value)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolution of x (B, C, ...) over 1 to 3 axes."""
    rank = weight.dim() - 2
    steps, spread = _per_axis(strides, rank), _per_axis(dilations, rank)
    pads = _pads(pad_type, pad, list(x.shape[2:]), _reach(list(weight.shape[2:]), spread), steps)
    convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return convolve(_padded(x, pads), weight, bias, steps, 0, spread, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Tensor | None = None,
    output_shape: Tensor | None = None,
    pad_type: str = "valid",
    strides: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv` over 1 to 3 axes; weight (C in, C out / groups, ...). Padding is cut off the result.

    `output_shape` (B, C out, ...), where given, says how much of the result is kept.
    """
    rank = weight.dim() - 2
    steps, spread = _per_axis(strides, rank), _per_axis(dilations, rank)
    transposed: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    whole = transposed(x, weight, None, steps, 0, 0, groups, spread)
    sizes = list(whole.shape[2:])
    kind = pad_type.lower()
    if kind == "same":
        kept = [size * step for size, step in zip(x.shape[2:], steps, strict=True)]
    elif kind in {"valid", "custom"}:
        kept = (
            sizes
            if kind == "valid" or pad is None
            else [size - sum(pair) for size, pair in zip(sizes, pad_pairs(pad), strict=True)]
        )
    else:
        raise ValueError(f"conv_transpose pad_type {pad_type!r} is not supported")
    kept = kept if output_shape is None else ints(output_shape)[2:]
    if kind == "custom" and pad is not None:
        first = [before for before, _ in pad_pairs(pad)]
    else:
        first = [max(0, size - keep) // 2 if kind == "same" else 0 for size, keep in zip(sizes, kept, strict=True)]
    # A negative pad cuts; where more is asked for than there is, the rest is zero.
    pads = [(-begin, begin + keep - size) for begin, keep, size in zip(first, kept, sizes, strict=True)]
    result = _padded(whole, pads)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def _windows(x: Tensor, kernel: list[int], strides: list[int]) -> Tensor:
    """(B, C, ...) to (B, C, positions..., taps)."""
    for axis, (size, step) in enumerate(zip(kernel, strides, strict=True)):
        x = x.unfold(axis + 2, size, step)
    return x.flatten(-len(kernel))


def _ceil_extra(size: int, pair: tuple[int, int], kernel: int, stride: int) -> int:
    """How much further padding a last window that begins inside the input or its front padding reaches into."""
    padded = size + sum(pair)
    count = -(-(padded - kernel) // stride) + 1
    if sum(pair) and (count - 1) * stride >= size + pair[0]:
        count -= 1
    return max(0, (count - 1) * stride + kernel - padded)


def _pool_pads(
    x: Tensor, kernel: list[int], strides: list[int], pad_type: str, pad: Tensor | None, ceil_mode: bool
) -> tuple[Pads, Pads]:
    """The declared padding, and what rounding the number of positions up adds behind it."""
    sizes = list(x.shape[2:])
    pads = _pads(pad_type, pad, sizes, kernel, strides)
    each = zip(sizes, pads, kernel, strides, strict=True)
    return pads, [(0, _ceil_extra(*one) if ceil_mode else 0) for one in each]


def max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value of each window of x (B, C, ...); padding never wins."""
    kernel, steps = ints(kernel_sizes), _per_axis(strides, x.dim() - 2)
    pads, extra = _pool_pads(x, kernel, steps, pad_type, pad, ceil_mode)
    return _windows(_padded(_padded(x, pads, -torch.inf), extra, -torch.inf), kernel, steps).amax(-1)


def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """The mean of each window of x (B, C, ...); padding counts as zeros, or not at all."""
    kernel, steps = ints(kernel_sizes), _per_axis(strides, x.dim() - 2)
    pads, extra = _pool_pads(x, kernel, steps, pad_type, pad, ceil_mode)
    counted = _padded(torch.ones((1, 1, *x.shape[2:])), pads, 0.0 if exclude_padding_from_average else 1.0)
    sums, counts = (_windows(_padded(each, extra), kernel, steps).sum(-1) for each in (_padded(x, pads), counted))
    return sums / counts


def l2_pool(
    x: Tensor, kernel_sizes: Tensor, pad_type: str, strides: Tensor | None = None, pad: Tensor | None = None
) -> Tensor:
    """The Euclidean norm of each window of x (B, C, ...)."""
    kernel, steps = ints(kernel_sizes), _per_axis(strides, x.dim() - 2)
    pads, _ = _pool_pads(x, kernel, steps, pad_type, pad, ceil_mode=False)
    return _windows(_padded(x.square(), pads), kernel, steps).sum(-1).sqrt()


WINDOW_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "avg_pool": avg_pool,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "l2_pool": l2_pool,
    "max_pool": max_pool,
}
