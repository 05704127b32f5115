"""MIL's operators that move values without changing them; see `mil_operators` for the conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeformer_converters.mil_arguments import axes_of, ints, several


def _flags(mask: Tensor | None, rank: int) -> list[bool]:
    return [False] * rank if mask is None else [bool(flag) for flag in mask.tolist()]


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    """Axes of size 1 at these places of the result."""
    x = torch.as_tensor(x)
    rank = x.dim() + len(ints(axes))
    return reduce(lambda tensor, axis: tensor.unsqueeze(axis), sorted(axis % rank for axis in ints(axes)), x)


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without these axes of size 1, or all of them."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes_of(axes, x)))


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """The same values in another shape; -1 is computed and 0 keeps the size of that axis."""
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(ints(shape))])


def transpose(x: Tensor, perm: Tensor) -> Tensor:
    """Axes in another order."""
    return x.permute(ints(perm))


def tile(x: Tensor, reps: Tensor) -> Tensor:
    """x repeated along each axis."""
    return x.repeat(ints(reps))


def shape(x: Tensor) -> Tensor:
    """The sizes of x."""
    return torch.tensor(x.shape, dtype=torch.int32)


def fill(shape: Tensor, value: float = 0.0) -> Tensor:
    """A tensor of one value."""
    return torch.full(ints(shape), value)


def concat(values: Sequence[Tensor], axis: int, interleave: bool = False) -> Tensor:
    """Tensors one after the other along an axis, or, interleaved, in turn."""
    tensors = several(values)
    if interleave:
        axis %= tensors[0].dim()
        return torch.stack(tensors, axis + 1).flatten(axis, axis + 1)
    return torch.cat([tensor.reshape(1) if tensor.dim() == 0 else tensor for tensor in tensors], axis)


def stack(values: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors along a new axis."""
    return torch.stack(several(values), axis)


def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Parts of given sizes, or of equal ones."""
    if split_sizes is None:
        return x.tensor_split(int(num_splits or 1), axis)
    return x.tensor_split(list(accumulate(ints(split_sizes)))[:-1], axis)


def gather(
    x: Tensor,
    indices: Tensor | int,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,  # noqa: ARG001 - torch always validates
) -> Tensor:
    """Slices of x along an axis; indices below zero count from the end."""
    if batch_dims:
        raise ValueError("gather with batch_dims is not supported")
    index = torch.as_tensor(indices).long()
    axis %= x.dim()
    picked = x.index_select(axis, torch.where(index < 0, index + x.shape[axis], index).reshape(-1))
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:  # noqa: ARG001
    """One value of x per index along an axis."""
    index = indices.long()
    return torch.gather(x, axis, torch.where(index < 0, index + x.shape[axis], index))


def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,  # noqa: ARG001
) -> Tensor:
    """A copy of data with slices along an axis replaced, or added to."""
    axis %= data.dim()
    index = indices.long().reshape(-1)
    rows = updates.reshape(*data.shape[:axis], index.numel(), *data.shape[axis + 1 :])
    methods = {"update": data.index_copy, "add": data.index_add}
    if mode not in methods:
        raise ValueError(f"scatter mode {mode!r} is not supported")
    return methods[mode](axis, index, rows)


def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,  # noqa: ARG001
) -> Tensor:
    """A copy of data with single values along an axis replaced, or added to."""
    methods = {"update": data.scatter, "add": data.scatter_add}
    if mode not in methods:
        raise ValueError(f"scatter_along_axis mode {mode!r} is not supported")
    return methods[mode](axis, indices.long(), updates)


def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Values before and after each of the last axes: pairs in the order of the axes."""
    pairs = torch.as_tensor(pad).reshape(-1, 2).flip(0).reshape(-1).tolist()
    if mode == "constant":
        return F.pad(x, pairs, value=constant_val)
    return F.pad(x, pairs, mode={"reflect": "reflect", "replicate": "replicate"}[mode])


def _window(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    begin_mask: Tensor | None,
    end_mask: Tensor | None,
    squeeze_mask: Tensor | None,
) -> tuple[Any, ...]:
    rank = x.dim()
    strides = [1] * rank if stride is None else ints(stride)
    if any(step < 0 for step in strides):
        raise ValueError("a negative stride is not supported")
    masks = zip(_flags(begin_mask, rank), _flags(end_mask, rank), _flags(squeeze_mask, rank), strict=True)
    ranges = zip(ints(begin), ints(end), strides, masks, strict=True)
    return tuple(
        first if squeezed else slice(None if from_start else first, None if to_end else last, step)
        for first, last, step, (from_start, to_end, squeezed) in ranges
    )


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """x[begin:end:stride] per axis; a mask opens that end, or drops the axis."""
    return x[_window(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)]


def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """A copy of x with x[begin:end:stride] replaced."""
    result = x.clone()
    result[_window(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)] = update
    return result


def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """So many values from `begin` on per axis; -1 takes the rest."""
    pairs = zip(ints(begin), ints(size), strict=True)
    return x[tuple(slice(first, None if count < 0 else first + count) for first, count in pairs)]


SHAPE_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "concat": concat,
    "expand_dims": expand_dims,
    "fill": fill,
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "pad": pad,
    "reshape": reshape,
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "shape": shape,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": slice_update,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
}
