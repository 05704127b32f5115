"""How MIL's operators read their arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ints(values: Tensor | int) -> list[int]:
    """A vector, or a single number, as Python integers."""
    return [int(value) for value in torch.as_tensor(values).reshape(-1).tolist()]


def axes_of(axes: Tensor | None, x: Tensor) -> list[int]:
    """Axes counted from the front; None stands for all of them."""
    return list(range(x.dim())) if axes is None else [axis % x.dim() for axis in ints(axes)]


def several(values: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The operands of a variadic input; a single one arrives bare."""
    return [values] if isinstance(values, Tensor) else [torch.as_tensor(value) for value in values]


def each_of(values: Sequence[int] | int) -> Sequence[int]:
    """The constants of a variadic input; a single one arrives bare."""
    return values if isinstance(values, Sequence) else [values]


def along_axis(value: Tensor | float, axis: int, rank: int) -> Tensor:
    """A scalar or (N,) per-channel tensor, shaped to broadcast along one of `rank` axes."""
    tensor = torch.as_tensor(value)
    return tensor.reshape([-1 if index == axis % rank else 1 for index in range(rank)]) if tensor.dim() else tensor


def pad_pairs(pad: Tensor) -> list[tuple[int, int]]:
    """Padding before and after each axis."""
    sizes = ints(pad)
    return list(zip(sizes[::2], sizes[1::2], strict=True))
