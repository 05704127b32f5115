"""MIL's lists of tensors, which loops fill: tuples that are never changed. See `mil_operators` for the conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgeformer_converters.mil.arguments import ints

TensorList = tuple[Tensor | None, ...]


def make_list(
    elem_shape: Sequence[int] | int | None = None,  # noqa: ARG001 - elements bring their shapes and types
    init_length: int = 1,
    dynamic_length: bool = True,  # noqa: ARG001 - a list grows when it is written behind its end
    dtype: str = "fp32",  # noqa: ARG001
) -> tuple[TensorList]:
    """A list of elements that nothing was written to."""
    return ((None,) * ints(init_length)[0],)


def list_length(ls: TensorList) -> int:
    """How many elements there are."""
    return len(ls)


def list_write(ls: TensorList, index: Tensor | int, value: Tensor) -> tuple[TensorList]:
    """The list with an element replaced."""
    return list_scatter(ls, torch.as_tensor(index).reshape(1), value.unsqueeze(0))


def list_read(ls: TensorList, index: Tensor | int) -> Tensor:
    """One element."""
    return list_gather(ls, torch.as_tensor(index).reshape(1))[0]


def list_gather(ls: TensorList, indices: Tensor) -> Tensor:
    """Elements at indices, stacked."""
    elements = [ls[index] for index in ints(indices)]
    if any(element is None for element in elements):
        raise ValueError("an element of the list is read before it is written")
    return torch.stack([element for element in elements if element is not None])


def list_scatter(ls: TensorList, indices: Tensor, value: Tensor) -> tuple[TensorList]:
    """The list with the elements at indices replaced by value's rows."""
    elements = dict(enumerate(ls)) | dict(zip(ints(indices), value, strict=True))
    return (tuple(elements.get(index) for index in range(max(elements, default=-1) + 1)),)


LIST_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "list_gather": list_gather,
    "list_length": list_length,
    "list_read": list_read,
    "list_scatter": list_scatter,
    "list_write": list_write,
    "make_list": make_list,
}
