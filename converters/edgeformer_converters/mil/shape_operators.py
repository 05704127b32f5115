"""MIL's operators that move values without changing them; see `operators.py` for the conventions."""

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
    x: Tensor, ref_tensors: Sequence[Tensor], begins: Sequence[int], ends: Sequence[int], end_masks: Sequence[bool]
) -> Tensor:
    """The same values in a shape put together of parts of other tensors' shapes; a mask opens a part's end."""
    parts = zip(several(ref_tensors), each_of(begins), each_of(ends), each_of(end_masks), strict=True)
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
