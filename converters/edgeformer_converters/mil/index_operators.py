"""MIL's operators that pick, place, sort and count by index; see `operators.py` for the conventions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from edgeformer_converters.mil.program import ints


def _from_front(indices: Tensor | int, size: int) -> Tensor:
    """Indices as torch wants them: int64, none below zero."""
    index = torch.as_tensor(indices).long()
    return torch.where(index < 0, index + size, index)


def gather(
    x: Tensor,
    indices: Tensor | int,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,  # noqa: ARG001 - torch always validates
) -> Tensor:
    """Slices of x along an axis; an index below zero counts from the end. Batch axes come first in both."""
    x = torch.as_tensor(x)
    axis %= x.dim()
    index = _from_front(indices, x.shape[axis])
    if batch_dims:
        pairs = zip(x.flatten(0, batch_dims - 1), index.flatten(0, batch_dims - 1), strict=True)
        picked = torch.stack([gather(each, rows, axis - batch_dims) for each, rows in pairs])
        return picked.reshape(*x.shape[:batch_dims], *picked.shape[1:])
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:  # noqa: ARG001
    """One value of x per index along an axis; an index below zero counts from the end."""
    return torch.gather(x, axis, _from_front(indices, x.shape[axis]))


def _rows(x: Tensor, indices: Tensor) -> Tensor:
    """The number, in x with its first axes flattened, of the slice that each vector of indices names."""
    number = torch.zeros(indices.shape[:-1], dtype=torch.int64)
    for place, size in enumerate(x.shape[: indices.shape[-1]]):
        number = number * size + _from_front(indices[..., place], size)
    return number


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:  # noqa: ARG001
    """The slice of x that each vector of indices (..., K) names in x's first K axes behind the batch axes."""
    if batch_dims:
        pairs = zip(x.flatten(0, batch_dims - 1), indices.flatten(0, batch_dims - 1), strict=True)
        picked = torch.stack([gather_nd(each, rows) for each, rows in pairs])
        return picked.reshape(*x.shape[:batch_dims], *picked.shape[1:])
    depth = indices.shape[-1]
    rest = x.shape[depth:]
    return x.reshape(-1, *rest)[_rows(x, indices).reshape(-1)].reshape(*indices.shape[:-1], *rest)


def _placed(data: Tensor, axis: int, index: Tensor, updates: Tensor, mode: str) -> Tensor:
    """A copy of data, combined along an axis with updates at index, both of one shape."""
    reductions = {"mul": "prod", "max": "amax", "min": "amin"}
    if mode == "update":
        return data.scatter(axis, index, updates)
    if mode in {"add", "sub"}:
        return data.scatter_add(axis, index, updates if mode == "add" else -updates)
    if mode == "div" and data.is_floating_point():
        return data / torch.ones_like(data).scatter_reduce(axis, index, updates, "prod")
    if mode not in reductions:
        raise ValueError(f"scatter mode {mode!r} of {data.dtype} is not supported")
    return data.scatter_reduce(axis, index, updates, reductions[mode])


def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,  # noqa: ARG001
) -> Tensor:
    """A copy of data with slices along an axis replaced by updates, or combined with them."""
    axis %= data.dim()
    index = _from_front(indices, data.shape[axis]).reshape(-1)
    slices = updates.reshape(*data.shape[:axis], index.numel(), *data.shape[axis + 1 :])
    shaped = index.reshape([-1, *[1] * (data.dim() - 1 - axis)]).expand(slices.shape)
    return _placed(data, axis, shaped, slices, mode)


def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,  # noqa: ARG001
) -> Tensor:
    """A copy of data with single values along an axis replaced by updates, or combined with them."""
    return _placed(data, axis, _from_front(indices, data.shape[axis]), updates, mode)


def scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    mode: str = "add",
    validate_indices: bool = False,  # noqa: ARG001
) -> Tensor:
    """A copy of data with the slices that vectors of indices (..., K) name replaced by updates, or combined."""
    rows = _rows(data, indices).reshape(-1)
    slices = updates.reshape(rows.numel(), -1)
    flat = data.reshape(math.prod(data.shape[: indices.shape[-1]]), -1)
    return _placed(flat, 0, rows.unsqueeze(1).expand(slices.shape), slices, mode).reshape(data.shape)


def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,  # noqa: ARG001 - without it any order would do
    return_indices: bool = True,
    output_indices_dtype: str = "int32",  # noqa: ARG001 - the program declares the type
) -> tuple[Tensor, ...]:
    """The k largest or smallest values along an axis, best first, and where they were; -1 stands for all."""
    values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    count = x.shape[axis] if k == -1 else k
    best = (values.narrow(axis, 0, count), indices.narrow(axis, 0, count))
    return best if return_indices else best[:1]


def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    """The order in which values along an axis are sorted; equal values keep theirs."""
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True)


def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:  # noqa: ARG001
    """Where the largest value along an axis is."""
    return torch.argmax(x, axis, keepdim=keep_dims)


def reduce_argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:  # noqa: ARG001
    """Where the smallest value along an axis is."""
    return torch.argmin(x, axis, keepdim=keep_dims)


def non_zero(x: Tensor) -> Tensor:
    """(N, rank): the place of each value that is not zero, in order."""
    return torch.nonzero(x)


def one_hot(
    indices: Tensor, one_hot_vector_size: int, axis: int = -1, on_value: float = 1, off_value: float = 0
) -> Tensor:
    """Along a new axis `on_value` at each index, elsewhere `off_value`."""
    size = ints(one_hot_vector_size)[0]
    hot = torch.as_tensor(indices).unsqueeze(-1) == torch.arange(size)
    return torch.where(hot, torch.tensor(on_value), torch.tensor(off_value)).movedim(-1, axis)


INDEX_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "argsort": argsort,
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "non_zero": non_zero,
    "one_hot": one_hot,
    "reduce_argmax": reduce_argmax,
    "reduce_argmin": reduce_argmin,
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
    "topk": topk,
}
