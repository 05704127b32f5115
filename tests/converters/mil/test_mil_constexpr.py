"""Compressed weights expand to what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeformer_converters.mil.program import CONSTEXPR, unpack_bits


def test_unpack_bits_reads_least_significant_bits_first() -> None:
    # 3-bit 1, 2, 7 and 4 from the right: 100 111 010 001.
    packed = np.array([0b11010001, 0b00001001], np.uint8)
    packed[1] = 0b1001
    assert unpack_bits(packed, 3, 4).tolist() == [1, 2, 7, 4]
    assert unpack_bits(packed, 3, 4, signed=True).tolist() == [1, 2, -1, -4]


def test_affine_dequantize_per_channel() -> None:
    got = CONSTEXPR["constexpr_affine_dequantize"](
        quantized_data=torch.tensor([[1, 2], [3, 4]]),
        zero_point=torch.tensor([1, 0]),
        scale=torch.tensor([0.5, 2.0]),
        axis=0,
    )
    assert got.tolist() == [[0.0, 0.5], [6.0, 8.0]]


def test_blockwise_shift_scale_repeats_each_block() -> None:
    got = CONSTEXPR["constexpr_blockwise_shift_scale"](
        data=torch.tensor([[1, 2, 3, 4]]), scale=torch.tensor([[1.0, 10.0]]), offset=torch.tensor([[0, 1]])
    )
    assert got.tolist() == [[1.0, 2.0, 20.0, 30.0]]


# The examples of coremltools' documentation of constexpr_lut_to_dense.
def test_palettes_per_group() -> None:
    lut = torch.tensor([[1.0, 5.0, 9.0, 13.0], [2.0, 10.0, 18.0, 26.0]]).reshape(2, 1, 4, 1)
    indices = torch.tensor([[2, 3], [3, 0], [1, 0], [3, 0], [2, 1], [0, 3]])
    got = CONSTEXPR["constexpr_lut_to_dense"](indices=indices, lut=lut)
    assert got.tolist() == [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (1, [[[1, 1], [2, 2], [3, 3], [4, 1], [5, 2], [6, 3]], [[4, 4], [5, 5], [6, 6], [1, 1], [2, 2], [3, 3]]]),
        (2, [[[1, 2, 3, 1, 2, 3], [4, 5, 6, 1, 2, 3]], [[4, 5, 6, 4, 5, 6], [1, 2, 3, 1, 2, 3]]]),
    ],
)
def test_palettes_of_vectors(axis: int, expected: list[list[list[int]]]) -> None:
    lut = torch.tensor([[1, 2, 3], [4, 5, 6]]).reshape(1, 1, 1, 2, 3)
    indices = torch.tensor([[[0, 0], [1, 0]], [[1, 1], [0, 0]]])
    got = CONSTEXPR["constexpr_lut_to_dense"](indices=indices, lut=lut, vector_axis=axis)
    assert got.tolist() == expected


def test_palettes_of_ios_16_are_packed() -> None:
    got = CONSTEXPR["constexpr_lut_to_dense"](
        indices=torch.tensor([0b11100100], dtype=torch.int32),
        lut=torch.tensor([1.0, 2.0, 3.0, 4.0]),
        shape=torch.tensor([2, 2]),
    )
    assert got.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_sparse_weights_fill_where_the_mask_is_one() -> None:
    data, mask = torch.tensor([5.0, 6.0]), torch.tensor([[0, 1], [1, 0]])
    assert CONSTEXPR["constexpr_sparse_to_dense"](nonzero_data=data, mask=mask).tolist() == [[0, 5], [6, 0]]
    packed = torch.tensor([0b0110], dtype=torch.int32)
    got = CONSTEXPR["constexpr_sparse_to_dense"](nonzero_data=data, mask=packed, shape=torch.tensor([2, 2]))
    assert got.tolist() == [[0, 5], [6, 0]]


def test_sparse_quantized_weights() -> None:
    mask, scaled = CONSTEXPR["constexpr_sparse_blockwise_shift_scale"](
        data_mask=torch.tensor([[0, 1], [1, 0]]),
        nonzero_data=torch.tensor([5, 6]),
        scale=torch.tensor([[2.0], [10.0]]),
    )
    assert scaled.tolist() == [10.0, 60.0]
    assert mask.tolist() == [[0, 1], [1, 0]]


def test_sparse_palettes() -> None:
    mask, values = CONSTEXPR["constexpr_lut_to_sparse"](
        indices_mask=torch.tensor([[0, 1], [1, 0]]),
        indices_nonzero_data=torch.tensor([1, 0]),
        lut=torch.tensor([3.0, 4.0]).reshape(1, 1, 2, 1),
    )
    assert values.tolist() == [4.0, 3.0]
    assert mask.tolist() == [[0, 1], [1, 0]]
