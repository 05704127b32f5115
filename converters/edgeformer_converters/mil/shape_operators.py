"""MIL's operators that move values without changing them, and those that pick, place, sort and count by index.

See `operators.py` for the conventions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeformer_converters.mil.program import axes_of, each_of, ints, pad_pairs, several


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


def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Values before and after each of the last axes: a constant, or the axis's own, mirrored or its first and last."""
    pairs = pad_pairs(pad)
    if mode == "constant":
        return F.pad(x, [size for pair in reversed(pairs) for size in pair], value=constant_val)
    for axis, (before, after) in zip(range(-len(pairs), 0), pairs, strict=True):
        last = x.shape[axis] - 1
        places = torch.arange(-before, last + 1 + after)
        mirrored = last - (last - places.abs()).abs()
        choices = {"reflect": mirrored, "replicate": places.clamp(0, last)}
        x = x.index_select(axis, choices[mode]) if before or after else x
    return x


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


def reshape_like(
    x: Tensor, ref_tensors: Sequence[Tensor], starts: Sequence[int], ends: Sequence[int], end_masks: Sequence[bool]
) -> Tensor:
    """The same values in a shape put together of parts of other tensors' shapes; a mask opens a part's end."""
    parts = zip(several(ref_tensors), each_of(starts), each_of(ends), each_of(end_masks), strict=True)
    sizes = [ref.shape[begin:] if to_end else ref.shape[begin:end] for ref, begin, end, to_end in parts]
    return x.reshape([size for part in sizes for size in part])


def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    """(sizes before the axis, multiplied, sizes from it on, multiplied)."""
    rows = math.prod(x.shape[:axis])
    return x.reshape(rows, x.numel() // rows)


def fill_like(ref_tensor: Tensor, value: float = 0.0) -> Tensor:
    """A tensor of one value in another's shape."""
    return torch.full(ref_tensor.shape, value)


def range_1d(start: float, end: float, step: float) -> Tensor:
    """start, start + step, ... below end."""
    return torch.arange(*(torch.as_tensor(value).item() for value in (start, end, step)))


def reverse(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Values in reverse order along these axes, or all."""
    return x.flip(axes_of(axes, x))


def reverse_sequence(x: Tensor, lengths: Tensor, seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    """For each batch entry the first values along the sequence axis in reverse order, as many as its length says."""
    moved = x.movedim((batch_axis, seq_axis), (0, 1))
    turned = [torch.cat([row[:length].flip(0), row[length:]]) for row, length in zip(moved, ints(lengths), strict=True)]
    return torch.stack(turned).movedim((0, 1), (batch_axis, seq_axis))


def sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    """All windows along an axis, with a new axis of their size behind it."""
    axis %= x.dim()
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Each matrix with zeros outside a band of so many diagonals below and above the main one; -1 keeps all."""
    rows, columns = (torch.arange(size) for size in x.shape[-2:])
    below = rows.unsqueeze(1) - columns
    kept = (below <= (lower if lower >= 0 else rows.numel())) & (-below <= (upper if upper >= 0 else columns.numel()))
    return torch.where(kept, x, torch.zeros((), dtype=x.dtype))


def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """(B, b² C, H, W) to (B, C, b H, b W): channels lie in the order of (row, column, channel)."""
    batch, depth, height, width = x.shape
    blocks = x.reshape(batch, block_size, block_size, depth // block_size**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * block_size, width * block_size)


def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """The inverse of `depth_to_space`."""
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // block_size, block_size, width // block_size, block_size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // block_size, width // block_size)


def space_to_batch(x: Tensor, block_shape: Tensor, paddings: Tensor) -> Tensor:
    """(B, C, H, W), padded, to (r c B, C, H / r, W / c) for blocks of r rows and c columns."""
    (rows, columns), ((top, bottom), (left, right)) = ints(block_shape), pad_pairs(paddings)
    x = F.pad(x, [left, right, top, bottom])
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // rows, rows, width // columns, columns)
    return blocks.permute(3, 5, 0, 1, 2, 4).reshape(-1, channels, height // rows, width // columns)


def batch_to_space(x: Tensor, block_shape: Tensor, crops: Tensor) -> Tensor:
    """The inverse of `space_to_batch`."""
    (rows, columns), ((top, bottom), (left, right)) = ints(block_shape), pad_pairs(crops)
    batch, channels, height, width = x.shape
    blocks = x.reshape(rows, columns, batch // (rows * columns), channels, height, width)
    whole = blocks.permute(2, 3, 4, 0, 5, 1).reshape(-1, channels, height * rows, width * columns)
    return F.pad(whole, [-left, -right, -top, -bottom])


SHAPE_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "band_part": band_part,
    "batch_to_space": batch_to_space,
    "concat": concat,
    "depth_to_space": depth_to_space,
    "expand_dims": expand_dims,
    "fill": fill,
    "fill_like": fill_like,
    "flatten2d": flatten2d,
    "pad": pad,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, upscale_factor),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, downscale_factor),
    "range_1d": range_1d,
    "reshape": reshape,
    "reshape_like": reshape_like,
    "reverse": reverse,
    "reverse_sequence": reverse_sequence,
    "shape": shape,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": slice_update,
    "sliding_windows": sliding_windows,
    "space_to_batch": space_to_batch,
    "space_to_depth": space_to_depth,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
}


# Operators that pick, place, sort and count by index.


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
