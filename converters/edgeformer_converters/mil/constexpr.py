"""MIL's operators for compressed weights: what Core ML does once, when it loads a model.

Semantics: coremltools' operator definitions for iOS 16 (`shape` given: flat, bit-packed data) and iOS 18.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeformer_converters.mil.arguments import along_axis
from edgeformer_converters.mil.program import unpack_bits


def _per_block(values: Tensor, shape: torch.Size) -> Tensor:
    """Repeat each of `values` over the block of `shape` that it stands for; ranks are equal, sizes divide."""
    for axis, (blocks, size) in enumerate(zip(values.shape, shape, strict=True)):
        values = values.repeat_interleave(size // blocks, axis)
    return values


def affine_dequantize(quantized_data: Tensor, zero_point: Tensor | int, scale: Tensor | float, axis: int) -> Tensor:
    """(q - zero_point) * scale, per tensor or per channel of `axis`."""
    rank = quantized_data.dim()
    return (quantized_data - along_axis(zero_point, axis, rank)) * along_axis(scale, axis, rank)


def blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """(data - offset) * scale; `scale` and `offset` have data's rank, and a size per axis that divides data's."""
    shifted = data if offset is None else data - _per_block(offset, data.shape)
    return shifted * _per_block(scale, data.shape)


def lut_to_dense(indices: Tensor, lut: Tensor, shape: Tensor | None = None, vector_axis: int | None = None) -> Tensor:
    """Look up palette entries: `lut` is (blocks..., palettes, vector size), or flat in iOS 16's form."""
    if shape is not None:
        bits = int(lut.numel() - 1).bit_length()
        count = int(shape.prod())
        flat = unpack_bits(indices.numpy().astype(np.uint8), bits, count)
        return lut[torch.from_numpy(flat).long()].reshape(shape.tolist())
    palettes, vector_size = lut.shape[-2:]
    tables = lut.reshape(*lut.shape[:-2], palettes * vector_size)
    for axis, size in enumerate(indices.shape):
        tables = tables.repeat_interleave(size // lut.shape[axis], axis)
    first = indices.long().unsqueeze(-1) * vector_size
    entries = torch.gather(tables, -1, first + torch.arange(vector_size))
    if vector_size == 1:
        return entries.squeeze(-1)
    if vector_axis is None:
        raise ValueError("a palette of vectors needs a vector_axis")
    axis = vector_axis % indices.dim()
    entries = entries.movedim(-1, axis + 1)
    return entries.flatten(axis, axis + 1)


def sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Tensor | None = None) -> Tensor:
    """Zeros with `nonzero_data` where `mask` is one."""
    if shape is not None:
        count = int(shape.prod())
        mask = torch.from_numpy(unpack_bits(mask.numpy().astype(np.uint8), 1, count)).reshape(shape.tolist())
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[mask.bool()] = nonzero_data
    return dense


def lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: int | None = None
) -> tuple[Tensor, Tensor]:
    """Look up the entries where the mask is one: the mask of the result, and its nonzero data."""
    dense = lut_to_dense(sparse_to_dense(indices_nonzero_data, indices_mask), lut, vector_axis=vector_axis)
    mask = indices_mask
    if dense.shape != mask.shape:
        assert vector_axis is not None
        mask = mask.repeat_interleave(lut.shape[-1], vector_axis)
    return mask, dense[mask.bool()]


def sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Shift and scale the entries where the mask is one: the mask, and the nonzero data of the result."""
    dense = blockwise_shift_scale(sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask.bool()]


def cast(source_val: Tensor, output_dtype: str) -> Tensor:  # noqa: ARG001 - the reader states the result's type
    """A float16 constant as float32."""
    return source_val


CONSTEXPR: Mapping[str, Callable[..., Any]] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_cast": cast,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_lut_to_sparse": lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
